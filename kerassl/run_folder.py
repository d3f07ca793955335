"""The files in a run's folder."""

import csv
import math
from pathlib import Path
from typing import Any

from kerassl.names import (
    BEST,
    ENCODER,
    GUARDS,
    MAX_UNREADABLE,
    MONITORS,
    START,
    TIMES,
)
from kerassl.reading import (
    ANY_DICT,
    ANY_NUMBER,
    FLAG,
    PLAIN_DICT,
    Form,
    check_fields,
    check_form,
    integer,
    items,
    load_json,
    mapping,
    matching,
    number,
    one_of,
    optional,
    text,
)
from kerassl.renamed import current_recipe, recipe_hash

RECIPE = "recipe.json"
CHECKPOINT = "checkpoint.keras"
CHECKPOINTS = "checkpoints"
HISTORY = "history.csv"
IMAGES = "images.npz"
REPORT = "report.html"
SCORES = "scores.json"
TENSORBOARD = "tensorboard"
# All that a new run replaces: the files of the run itself first.
FILES = (
    RECIPE,
    CHECKPOINT,
    ENCODER,
    HISTORY,
    START,
    BEST,
    SCORES,
    REPORT,
    IMAGES,
)
FOLDERS = (CHECKPOINTS, TENSORBOARD)
# The characters of a note on the data that are kept.
NOTE_LENGTH = 10_000


def _is_range(value: Any) -> bool:
    from kerassl.value_range import is_recorded  # It loads NumPy.

    return is_recorded(value)


# What is recorded of trained weights.
WEIGHTS: dict[str, Form] = {
    "source": text(4096),
    "is_public": FLAG,
    "sha256": matching("[0-9a-f]{64}", "64 hexadecimal digits"),
    "name": text(),
    "license": text(),
    "method": optional(text()),
    "datasets": items(text()),
    "supervised": FLAG,
}


def _is_weights(value: Any) -> bool:
    try:
        check_fields(value, WEIGHTS, "", ("source", "name", "sha256"))
    except ValueError:
        return False
    return PLAIN_DICT.is_valid(value)


# The fields of `recipe.json`. `Recipe` checks the recipe itself.
SETTINGS: dict[str, Form] = {
    "recipe": PLAIN_DICT,
    "recipe_hash": matching("[0-9a-f]{64}", "64 hexadecimal digits"),
    "data": text(4096),
    "data_asked": text(4096),
    "backend": matching("[a-z_]{1,32}", "a backend's name"),
    "limit": optional(integer(1)),
    "data_dir": optional(text(4096)),
    "max_unreadable": number(0, 1),
    "devices": integer(1),
    "images": integer(1),
    "images_hash": matching("[0-9a-f]{64}", "64 hexadecimal digits"),
    "data_notes": items(text(NOTE_LENGTH)),
    "device": text(200),
    "versions": mapping(text(200)),
    "extended": items(mapping(integer(0))),
    "weights": Form(_is_weights, "a dict that describes trained weights"),
    "teacher": Form(_is_weights, "a dict that describes trained weights"),
    "range": text(1000),
    "monitor": items(one_of(*MONITORS)),
    "guard": one_of(*GUARDS),
    "keep": integer(0),
    "checkpoint_every": integer(1),
    "tensorboard": FLAG,
    "value_range": Form(
        _is_range, "the lists `low` and `high`, of lower and higher numbers"
    ),
}


def _is_beside(value: Any) -> bool:
    return (
        ANY_DICT.is_valid(value)
        and ANY_NUMBER.is_valid(value.get("accuracy"))
        and items(ANY_NUMBER).is_valid(value.get("draws", []))
    )


# The fields of one protocol's scores, in `scores.json` and in presets.
SCORE: dict[str, Form] = {
    "accuracy": ANY_NUMBER,
    "untrained_accuracy": optional(ANY_NUMBER),
    "stages": mapping(ANY_NUMBER),
    "untrained_stages": mapping(ANY_NUMBER),
    "kinds": mapping(ANY_NUMBER),
    "untrained_kinds": mapping(ANY_NUMBER),
    "best_stage": optional(text(200)),
    "settings": optional(ANY_DICT),
    "draws": items(ANY_NUMBER),
    "untrained_draws": items(ANY_NUMBER),
    "test_size": integer(1),
    "beside": mapping(Form(_is_beside, "a dict with an accuracy")),
    "data": text(4096),
}


def read_settings(folder: str | Path) -> dict[str, Any]:
    """Reads a run's `recipe.json`.

    Args:
        folder: path of the run.

    Returns:
        A dict: the recipe and its hash, the data, the backend, the device, and
        the versions of the libraries.

    Raises:
        FileNotFoundError: if the folder doesn't hold a run.
        ValueError: if the file is broken.
    """
    path = Path(folder) / RECIPE
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no run: there is no {path}.")
    settings = load_json(path)
    needed = ("recipe", "recipe_hash", "backend", "data")
    check_fields(settings, SETTINGS, str(path), needed)
    names = {"method": text(), "name": text()}
    check_fields(settings["recipe"], names, f"{path}: `recipe`", names)
    if settings["recipe_hash"] == recipe_hash(settings["recipe"]):
        settings["recipe"] = current_recipe(settings["recipe"])
        settings["recipe_hash"] = recipe_hash(settings["recipe"])
    # Older runs don't have them.
    missing: dict[str, Any] = {"limit": None, "data_dir": None}
    return {**missing, "max_unreadable": MAX_UNREADABLE, **settings}


def refuse_files(folder: str | Path, overwrite: bool = False) -> None:
    """Checks that a new run in a folder replaces nothing that it may not.

    Args:
        folder: path of the folder, which need not exist.
        overwrite: bool. Whether it may replace a run.

    Raises:
        FileExistsError: if the folder holds a run, without `overwrite`; or if
            it holds no run, but something with the name of a run's file.
    """
    names = [n for n in (*FILES, *FOLDERS) if (Path(folder) / n).exists()]
    if not names or (overwrite and RECIPE in names):
        return
    if RECIPE in names:
        raise FileExistsError(
            f"{folder} holds a run already. Resume it, overwrite it, or "
            "choose another folder."
        )
    raise FileExistsError(
        f"{folder} holds no run, but {', '.join(names)}, which a run would "
        "replace. Move that away, or choose another folder."
    )


def folder_of(source: str | Path) -> Path | None:
    """Returns the folder of a run; `None` if the source isn't of a run.

    Args:
        source: a path of anything, such as a run's folder, or an encoder or a
            checkpoint in it.
    """
    path = Path(source)
    if path.name in (ENCODER, BEST, START, CHECKPOINT) and path.is_file():
        path = path.parent
    elif path.parent.name == CHECKPOINTS and path.is_file():
        path = path.parent.parent
    return path if (path / RECIPE).is_file() else None


def encoder_file(folder: str | Path) -> Path:
    """Returns the path of a run's best encoder, or else of its last.

    Only a run with a guard has a best one.
    """
    best = Path(folder) / BEST
    return best if best.is_file() else Path(folder) / ENCODER


def best_note(folder: str | Path) -> str | None:
    """Returns a sentence that says so if a run has a best encoder."""
    if encoder_file(folder).name == ENCODER:
        return None
    return f"the run's best encoder is taken, {BEST}; {ENCODER} is the last."


def read_history(folder: str | Path) -> list[dict[str, float]]:
    """Reads a run's `history.csv`.

    Args:
        folder: path of a run's folder.

    Returns:
        A list with a dict for each finished epoch: `"epoch"`, from 1, the
        metrics measured after it, `"seconds"` and `"images_per_second"`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is broken.

    Example:
    ```python
    history = kerassl.runs.read_history("runs/a")
    kerassl.visualization.learning_curves(history)
    ```
    """
    path = Path(folder) / HISTORY
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} has no learning curves: there is no {path}."
        )
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = [
                {key: float(text) for key, text in row.items() if text != ""}
                for row in csv.DictReader(file, strict=True)
            ]
        for row in rows:
            row["epoch"]  # Required; a KeyError means a broken file.
            for name in ("epoch", *TIMES):
                if not 0 <= row.get(name, 0) < math.inf:
                    raise ValueError(f"{name} is {row[name]}")
        return rows
    except (csv.Error, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is broken: {error!r}") from error


def read_scores(folder: str | Path) -> dict[str, dict[str, Any]]:
    """Reads the scores that `kerassl evaluate` wrote into a run's folder.

    Args:
        folder: path of a run's folder.

    Returns:
        A dict from a protocol's name to its scores; empty if the run was not
        evaluated.

    Raises:
        ValueError: if the file is broken.
    """
    path = Path(folder) / SCORES
    if not path.exists():
        return {}
    scores = load_json(path, finite=False)
    check_form(scores, mapping(ANY_DICT), str(path))
    for name, score in scores.items():
        check_fields(score, SCORE, f"{path}: {name!r}")
    return scores
