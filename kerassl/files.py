"""Files that are replaced atomically."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

PARTIAL = ".partial-"


@contextlib.contextmanager
def replacing(path: Path, folder: Path | None = None) -> Iterator[Path]:
    """Yields the path of a temporary file that then replaces `path`.

    The file replaces `path` at the end of the block, and is removed if the
    block raises. Whatever happens, even a power failure, `path` is either the
    old file or the new one.

    Args:
        path: path of the file to replace, in an existing folder.
        folder: path of the temporary file's folder, on the same file system;
            by default that of `path`.

    Yields:
        A path in that folder, with the same suffix.
    """
    name = f"{PARTIAL}{uuid.uuid4().hex[:12]}-{path.name}"
    temporary = (folder or path.parent) / name
    try:
        yield temporary
        flush(temporary)
        os.replace(temporary, path)
        if os.name == "posix":  # Windows can't open a folder.
            flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replaces a file by a text atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def flush(path: Path) -> None:
    """Waits until a file, or on POSIX a folder, is on the disk."""
    # Windows can't flush a file that is opened for reading only.
    writable = os.name != "posix"
    file = os.open(path, os.O_RDWR if writable else os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
