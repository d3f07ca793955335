"""A training model, its optimizer and the run's position, in one file."""

import dataclasses
import json
import zipfile
from pathlib import Path
from typing import Any

import keras

from kerassl.runs.files import replacing

# The member of the `.keras` file, a zip, that holds the position. Keras doesn't
# look at members that it doesn't know.
MEMBER = "kerassl_run.json"


@dataclasses.dataclass
class Position:
    """How far a run has come.

    Args:
        epoch: int, the number of finished epochs.
        step: int, the number of finished steps of the next epoch.
        seconds: float, the time that these steps took.
        metrics: the values of the model's metric variables after them.
        history: a dict for each finished epoch: the rows of `history.csv`.
    """

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    metrics: list[float] = dataclasses.field(default_factory=list)
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)


def save_checkpoint(path: Path, model: keras.Model, position: Position) -> None:
    """Writes a checkpoint, which replaces the last one as a whole.

    Position and weights are one file, so that they can't disagree.

    Args:
        path: the `.keras` file.
        model: a compiled model.
        position: `Position`.
    """
    with replacing(path) as temporary:
        model.save(temporary)
        with zipfile.ZipFile(temporary, "a") as archive:
            archive.writestr(MEMBER, json.dumps(dataclasses.asdict(position)))


def load_checkpoint(path: Path) -> tuple[keras.Model, Position]:
    """Reads what `save_checkpoint` wrote.

    Args:
        path: the `.keras` file.

    Returns:
        The compiled model, and the `Position`.

    Raises:
        ValueError: if the file is no checkpoint of a run.
    """
    position = read_position(path)
    return keras.saving.load_model(path), position


def read_position(path: Path) -> Position:
    """Reads how far the run of a checkpoint has come.

    Args:
        path: the `.keras` file.

    Raises:
        ValueError: if the file is no checkpoint of a run.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return Position(**json.loads(archive.read(MEMBER)))
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is no checkpoint of a kerassl run: {error}"
        ) from error
