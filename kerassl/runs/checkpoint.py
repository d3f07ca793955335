"""Checkpoints: the model, its optimizer and the run's position in one file."""

import contextlib
import csv
import dataclasses
import io
import json
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerassl.files import replacing, write_text
from kerassl.methods import SelfSupervisedModel
from kerassl.models import load_keras_file
from kerassl.reading import (
    ANY_DICT,
    ANY_NUMBER,
    check_fields,
    integer,
    items,
    number,
)
from kerassl.run_folder import (
    CHECKPOINT,
    CHECKPOINTS,
    ENCODER,
    HISTORY,
    SCORES,
    read_settings,
)

# The position is stored as this member of the `.keras` file, a zip archive.
# Keras ignores members that it doesn't know.
MEMBER = "kerassl_run.json"
KEPT = re.compile(r"epoch_(\d+)\.keras")
MOST_BYTES = 2**28
FORMS = {
    "epoch": integer(0),
    "step": integer(0),
    "seconds": number(0),
    "metrics": items(ANY_NUMBER),
    "history": items(ANY_DICT, most=2**24),
}


@dataclasses.dataclass
class Position:
    """How far a run has got.

    Args:
        epoch: int, the number of finished epochs.
        step: int, the number of finished steps of the current epoch.
        seconds: float, the time these steps took.
        metrics: the values of the model's metric variables after these steps.
        history: a dict per finished epoch, the rows of `history.csv`.
    """

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    metrics: list[float] = dataclasses.field(default_factory=list)
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)


def save_checkpoint(path: Path, model: keras.Model, position: Position) -> None:
    """Writes a checkpoint, and replaces the last one atomically.

    Position and weights share a file, so that they can't disagree.

    Args:
        path: path of the `.keras` file.
        model: a compiled model.
        position: `Position`.
    """
    with replacing(path) as temporary:
        model.save(temporary)
        with zipfile.ZipFile(temporary, "a") as archive:
            archive.writestr(MEMBER, json.dumps(dataclasses.asdict(position)))


def keep_checkpoint(folder: Path, position: Position, count: int) -> None:
    """Copies the checkpoint of a finished epoch, and removes the oldest copies.

    Args:
        folder: the run's folder.
        position: `Position` of the checkpoint.
        count: int >= 0, the number of copies to keep.
    """
    if count == 0 or position.step:
        return
    kept = folder / CHECKPOINTS
    kept.mkdir(exist_ok=True)
    # Temporary files are in the run's folder, where the next process looks.
    with replacing(kept / f"epoch_{position.epoch:04d}.keras", folder) as new:
        shutil.copyfile(folder / CHECKPOINT, new)
    # By number, since 10000 comes before 9999 as text. Epochs after this one
    # are of a run that went back to an older checkpoint.
    epochs = {
        int(match[1]): path
        for path in kept.iterdir()
        if (match := KEPT.fullmatch(path.name))
    }
    for epoch in sorted(n for n in epochs if n <= position.epoch)[:-count]:
        epochs[epoch].unlink()


def write_outputs(
    folder: Path, encoder: keras.Model, position: Position
) -> None:
    """Writes the encoder and the history, and removes the former's scores.

    Args:
        folder: the run's folder.
        encoder: `keras.Model`.
        position: `Position` of the checkpoint.
    """
    with replacing(folder / ENCODER) as temporary:
        encoder.save(temporary)
        (folder / SCORES).unlink(missing_ok=True)
    _write_history(folder, position)


def restore_outputs(
    folder: Path, encoder: keras.Model, position: Position
) -> None:
    """Writes what is older than the checkpoint, since the run was killed.

    Args:
        folder: as in `write_outputs`.
        encoder: likewise.
        position: likewise.
    """
    with contextlib.suppress(OSError, ValueError):
        known = load_keras_file(folder / ENCODER).get_weights()
        weights = encoder.get_weights()
        if len(known) == len(weights) and all(
            map(np.array_equal, known, weights)
        ):
            _write_history(folder, position)
            return
    write_outputs(folder, encoder, position)


def _write_history(folder: Path, position: Position) -> None:
    text = io.StringIO()
    if history := position.history:
        columns = list(dict.fromkeys(key for row in history for key in row))
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)
    write_text(folder / HISTORY, text.getvalue())


def load_checkpoint(path: Path) -> tuple[keras.Model, Position]:
    """Loads a checkpoint.

    Args:
        path: path of the `.keras` file.

    Returns:
        The compiled model, and the `Position`.

    Raises:
        ValueError: if the file is not a checkpoint of a run.
    """
    position = read_position(path)
    model = load_keras_file(path, compile=True)
    if not isinstance(model, SelfSupervisedModel) or model.optimizer is None:
        raise ValueError(
            f"{path} is not a checkpoint of a kerassl run: it holds a "
            f"{type(model).__name__}."
        )
    return model, position


def read_position(path: Path) -> Position:
    """Reads the position in a checkpoint, without its model.

    Args:
        path: path of the `.keras` file.

    Raises:
        ValueError: if the file is not a checkpoint of a run.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size = archive.getinfo(MEMBER).file_size
            if size > MOST_BYTES:
                raise ValueError(f"its {MEMBER} has {size:,} bytes")
            data = archive.read(MEMBER)
        # Not `read_json`, whose limits are for files of strangers: the history
        # of a long run exceeds them, and Keras reads the rest of this file.
        fields = json.loads(data)
        check_fields(fields, FORMS, MEMBER)
        return Position(**fields)
    except Exception as error:  # A broken zip may raise almost anything.
        raise ValueError(
            f"{path} is not a checkpoint of a kerassl run: {error}"
        ) from error


def state_of(folder: Path) -> tuple:
    """Returns the state of the run that a folder holds."""
    path, position = folder / CHECKPOINT, Position()
    if path.exists():
        position = read_position(path)
    return state(read_settings(folder), position)


def state(settings: dict[str, Any], position: Position) -> tuple:
    """Returns a value that identifies a state of a run."""
    return settings.get("recipe_hash"), position.epoch, position.step
