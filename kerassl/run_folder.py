"""What the folder of a run holds."""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from kerassl.names import MAX_UNREADABLE

RECIPE = "recipe.json"
CHECKPOINT = "checkpoint.keras"
CHECKPOINTS = "checkpoints"
ENCODER = "encoder.keras"
HISTORY = "history.csv"
REPORT = "report.html"
SCORES = "scores.json"
TENSORBOARD = "tensorboard"


def read_settings(folder: str | Path) -> dict[str, Any]:
    """Returns what a run's `recipe.json` holds.

    Raises:
        FileNotFoundError: if the folder holds no run.
        ValueError: if the file is broken.
    """
    path = Path(folder) / RECIPE
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no run: there is no {path}.")
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        settings["recipe"], settings["backend"], settings["data"]
        settings.setdefault("max_unreadable", MAX_UNREADABLE)  # Older runs.
        return settings
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is broken: {error!r}") from error


def refuse_run(folder: str | Path) -> None:
    """Refuses a folder that holds a run.

    Raises:
        FileExistsError: if it does.
    """
    for name in (RECIPE, CHECKPOINT, ENCODER, HISTORY):
        if (Path(folder) / name).exists():
            raise FileExistsError(
                f"{folder} holds a run already. Resume it, overwrite it, or "
                "choose another folder."
            )


def read_scores(folder: str | Path) -> dict[str, dict[str, Any]]:
    """Returns what `kerassl evaluate` wrote into a run's folder.

    Args:
        folder: path.

    Returns:
        A dict of a protocol's name to its scores; an empty one if the run was
        not evaluated.

    Raises:
        ValueError: if the file is broken.
    """
    path = Path(folder) / SCORES
    if not path.exists():
        return {}
    try:
        scores = json.loads(path.read_text(encoding="utf-8"))
        if all(isinstance(score, dict) for score in scores.values()):
            return scores
        raise TypeError("it must map protocols to their scores")
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"{path} is broken: {error}") from error


def environment() -> dict[str, Any]:
    """Returns the versions, the backend and the device of this process."""
    import keras

    import kerassl

    backend = keras.config.backend()
    # TensorFlow's is a path: "/job:localhost/.../device:CPU:0".
    device = str(keras.ops.zeros(()).device).rpartition("device:")[2].lower()
    return {
        "versions": {
            "kerassl": kerassl.__version__,
            "keras": keras.__version__,
            backend: version(backend),
        },
        "backend": backend,
        "device": device,
    }
