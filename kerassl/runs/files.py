"""A run's folder: its files, and whether it can be written to."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kerassl.files import PARTIAL, write_text
from kerassl.run_folder import SCORES, encoder_file, read_scores
from kerassl.run_lock import locked


@contextlib.contextmanager
def folder_at(path: Path) -> Iterator[None]:
    """Creates a folder, and removes it at the end if it is still empty."""
    created = [part for part in (path, *path.parents) if not part.exists()]
    path.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            for part in created:
                part.rmdir()


def check_writable(folder: Path) -> None:
    """Checks that files can be created in a folder, and leaves none behind.

    Raises:
        PermissionError: if not, with the reason.
    """
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise PermissionError(
            f"{folder} is not writable: {error.strerror}."
        ) from error


def remove_partial(folder: Path) -> None:
    """Removes what a killed process left unfinished. The folder is locked."""
    for path in folder.glob(f"{PARTIAL}*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def encoder_mark(folder: str | Path) -> tuple[int, ...] | None:
    """Returns a value that changes when a run's encoder is replaced.

    Args:
        folder: path of a run's folder.

    Returns:
        A tuple to compare, or `None` if there is no encoder.
    """
    try:
        found = os.stat(encoder_file(folder))
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def write_scores(
    folder: str | Path,
    scores: dict[str, dict[str, Any]],
    mark: tuple[int, ...] | None = None,
) -> None:
    """Adds scores to a run's `scores.json`.

    Args:
        folder: path of a run's folder.
        scores: dict from a protocol's name to its scores.
        mark: the result of `encoder_mark` before the encoder was loaded.

    Raises:
        InUseError: if the run is training.
        ValueError: if `scores.json` is broken, or the encoder was replaced
            in the meantime.
    """
    # Other evaluations hold the lock only for a moment.
    with locked(Path(folder), wait=3):
        if mark is not None and mark != encoder_mark(folder):
            raise ValueError(
                f"The encoder in {folder} was replaced while the old one was "
                "measured."
            )
        text = json.dumps({**read_scores(folder), **scores}, indent=2) + "\n"
        write_text(Path(folder) / SCORES, text)
