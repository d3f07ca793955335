"""Files that are replaced as a whole, or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives the path of a temporary file that takes the place of `path`.

    The file replaces `path` when the block ends, and is removed if the block
    raises. Whatever happens, even a loss of power, `path` is the old file or
    the new one.

    Args:
        path: the file to replace, in a folder that exists.

    Yields:
        A path in the same folder, with the same suffix.
    """
    temporary = path.with_name(f".partial-{path.name}")
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
        if os.name == "posix":  # Windows can't open a folder.
            _flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    writable = os.name != "posix"  # Windows flushes no read-only file.
    file = os.open(path, os.O_RDWR if writable else os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
