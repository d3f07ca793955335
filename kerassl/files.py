"""Files that are replaced atomically."""

import contextlib
import os
import shutil
import uuid
from collections.abc import Collection, Iterator
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


def other_entries(names: Collection[str], own: Collection[str]) -> list[str]:
    """Returns the names in a folder that keep it from being replaced.

    Hidden files do not: `replace_folder` keeps them.
    """
    return [n for n in names if n not in own and not n.startswith(".")]


def check_named(path: Path) -> None:
    """Refuses to replace `.` or `..`, from which a command may be running.

    Raises:
        ValueError: if the path doesn't end with a name.
    """
    if path.name in ("", ".."):
        raise ValueError(
            f"{path} has no name of its own to be replaced by. Go to another "
            f"folder, and give {path.resolve()}"
        )


def replace_folder(new: Path, folder: Path) -> None:
    """Gives a finished folder its name, and removes the older one.

    The hidden files of the older one are kept: it may be a clone of a
    repository. If the new one can't get the name, the older one gets it back.

    Args:
        new: path of the finished folder, on the same file system.
        folder: path that it gets.
    """
    if not folder.exists():
        os.rename(new, folder)
    else:
        old = folder.with_name(f".{folder.name}-{uuid.uuid4().hex}-old")
        try:
            os.rename(folder, old)
            os.rename(new, folder)
        except BaseException:  # Ctrl-C too.
            if old.exists() and not folder.exists():
                os.rename(old, folder)
            raise
        for path in old.glob(".*"):
            os.rename(path, folder / path.name)
        shutil.rmtree(old)
    if os.name == "posix":  # Windows can't open a folder.
        flush(folder.parent)


def flush(path: Path) -> None:
    """Waits until a file, or on POSIX a folder, is on the disk."""
    # Windows can't flush a file that is opened for reading only.
    writable = os.name != "posix"
    file = os.open(path, os.O_RDWR if writable else os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
