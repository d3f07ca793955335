"""Files that are replaced as a whole, or not at all."""

import contextlib
import json
import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kerassl.run_folder import ENCODER, SCORES, read_scores
from kerassl.run_lock import locked

PARTIAL = ".partial-"


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
    name = f"{PARTIAL}{uuid.uuid4().hex[:12]}-{path.name}"
    temporary = path.with_name(name)
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


def check_writable(folder: Path) -> None:
    """Refuses a folder in which no file can be made, without a trace.

    Raises:
        PermissionError: saying why.
    """
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise PermissionError(
            f"{folder} can't be written into: {error.strerror}."
        ) from error


def remove_partial(folder: Path) -> None:
    """Removes what a killed process was writing; the folder is locked."""
    for path in folder.glob(f"{PARTIAL}*"):
        path.unlink(missing_ok=True)


def encoder_mark(folder: str | Path) -> tuple[int, ...] | None:
    """Returns what changes when a run's encoder is replaced.

    Args:
        folder: path.

    Returns:
        A tuple to compare; `None` if there is no encoder.
    """
    try:
        found = os.stat(Path(folder) / ENCODER)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def write_scores(
    folder: str | Path,
    scores: dict[str, dict[str, Any]],
    mark: tuple[int, ...] | None = None,
) -> None:
    """Adds scores to those in a run's folder.

    Args:
        folder: path.
        scores: dict of a protocol's name to its scores.
        mark: what `encoder_mark` returned before the encoder was loaded.

    Raises:
        InUseError: if the run is training.
        ValueError: if the file there is broken, or the folder holds another
            encoder by now.
    """
    # Other evaluations write for a moment only.
    with locked(Path(folder), wait=3):
        if mark is not None and mark != encoder_mark(folder):
            raise ValueError(
                f"The encoder in {folder} was replaced while the old one was "
                "measured."
            )
        text = json.dumps({**read_scores(folder), **scores}, indent=2) + "\n"
        with replacing(Path(folder) / SCORES) as temporary:
            temporary.write_text(text, encoding="utf-8")
