"""Files that are replaced as a whole, or not at all."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kerassl.run_folder import SCORES, read_scores


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


def write_scores(folder: str | Path, scores: dict[str, dict[str, Any]]) -> None:
    """Adds scores to those in a run's folder.

    Args:
        folder: path.
        scores: dict of a protocol's name to its scores.

    Raises:
        ValueError: if the file there is broken.
    """
    text = json.dumps({**read_scores(folder), **scores}, indent=2) + "\n"
    with replacing(Path(folder) / SCORES) as temporary:
        temporary.write_text(text, encoding="utf-8")
