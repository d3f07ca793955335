"""Output that nobody may read to its end, as in `kerassl ... | head`."""

import io
import os
from typing import Any, TextIO


class Lasting:
    """A stream whose errors end what is printed, and not who prints it.

    After an error, such as a closed pipe or a full disk, the stream's file is
    `os.devnull`. So Python doesn't fail when it flushes the stream at exit.

    Args:
        stream: `sys.stdout` or `sys.stderr`; `None` if it was closed before
            Python started.
    """

    def __init__(self, stream: TextIO | None):
        self.stream = stream or io.StringIO()

    def __getattr__(self, name: str) -> Any:
        """Returns what else the stream has."""
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Writes a text."""
        try:
            self.stream.write(text)
        except OSError:
            self._end()
        return len(text)

    def flush(self) -> None:
        """Flushes the stream."""
        try:
            self.stream.flush()
        except OSError:
            self._end()

    def _end(self) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.stream.fileno())
        os.close(nowhere)
