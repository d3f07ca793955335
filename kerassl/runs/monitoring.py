"""The callbacks of `kerassl pretrain`."""

import importlib.util
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras

from kerassl import callbacks, encoders
from kerassl.choices import check_choice
from kerassl.models import load_keras_file
from kerassl.names import BEST, MONITORS, START
from kerassl.run_folder import TENSORBOARD
from kerassl.runs.run import Run
from kerassl.runs.splits import LabeledSplits

# The numbers of images to learn from, to classify and to check for collapse.
BANK, QUERIES, FEW = 10_000, 2_000, 512
# The number of training images that a guard looks at.
GUARDED = 2_000


def monitors(
    run: Run,
    names: Sequence[str],
    every: int | None = None,
    note: Callable[[str], None] = warnings.warn,
) -> list[keras.callbacks.Callback]:
    """Returns monitors of a run that use the images and labels of its data.

    Args:
        run: `Run`.
        names: names out of `"knn"`, `"linear"` (both need labels) and
            `"collapse"`.
        every: int > 0, the number of epochs between measurements; by default
            that of each monitor.
        note: called with sentences about the data, for example that there is
            no test split and a fifth of the images is held out.

    Returns:
        A list of Keras callbacks for `Run.train`.

    Raises:
        ValueError: if a monitor is unknown, or the data have no labels.

    Example:
    ```python
    run = kerassl.runs.start("runs/a", recipe, "cifar10")
    run.train(kerassl.runs.monitors(run, ["knn"]))
    ```
    """
    for name in names:
        check_choice("monitor", name, MONITORS)
    options: dict[str, Any] = {} if every is None else {"every": every}
    labeled: dict[str, Any] = {}
    if {"knn", "linear"} & set(names):
        splits = LabeledSplits(
            run.settings["data"],
            train_limit=BANK,
            test_limit=QUERIES,
            image_size=run.data.image_shape[:2],
            data_dir=run.settings["data_dir"],
            max_unreadable=run.settings["max_unreadable"],
            channels=run.data.image_shape[-1],
            value_range=run.settings.get("value_range"),
        )
        labeled = splits.parts
        for words in splits.notes:
            note(words)
    made: list[keras.callbacks.Callback] = []
    for name in names:
        if name == "knn":
            k = min(20, len(labeled["train"].images))
            made.append(callbacks.KNNMonitor(**labeled, k=k, **options))
        elif name == "linear":
            made.append(callbacks.LinearProbeMonitor(**labeled, **options))
        else:
            images = run.data.limited(FEW)
            made.append(callbacks.CollapseMonitor(images, **options))
    return made


def guard(run: Run, labels: bool = False) -> callbacks.StartGuard:
    """Returns the guard of a run that goes on from weights.

    It stops the run when its encoder is clearly worse than the start, and keeps
    the best one in the run's folder.

    Args:
        run: `Run`, started with `weights`.
        labels: bool. Whether to use the labels of some training images.

    Returns:
        A `kerassl.callbacks.StartGuard`, for `Run.train`.

    Raises:
        ValueError: if the run doesn't go on from weights, or the images have no
            labels.

    Example:
    ```python
    recipe = kerassl.recipes.going_on(kerassl.recipes.get("simclr"))
    run = kerassl.runs.start("runs/a", recipe, "cifar10", weights="runs/b")
    run.train([kerassl.runs.guard(run)])
    ```
    """
    if "weights" not in run.settings:
        raise ValueError(
            "A guard is for runs that go on from weights; this one began with "
            "random ones."
        )
    found = run.data.labels
    if labels and (found is None or found.min() < 0):
        raise ValueError(
            f"The images of {run.data.name} have no labels for the guard. "
            "Leave them out: it then compares neighborhoods with the start."
        )
    images = run.data.limited(GUARDED)
    start = None
    if not run.is_new:
        start = encoders.accepted(load_keras_file(run.folder / START))
    return callbacks.StartGuard(
        images.images,
        images.labels if labels else None,
        start=start,
        best=run.folder / BEST,
    )


def tensorboard(run: Run) -> keras.callbacks.Callback:
    """Returns a callback that writes to a run's `tensorboard` folder.

    Args:
        run: `Run`.

    Raises:
        ImportError: without TensorFlow and TensorBoard, which are needed with
            every backend.
    """
    missing = [
        name
        for name in ("tensorflow", "tensorboard")
        if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise ImportError(
            f"TensorBoard's files need {' and '.join(missing)} with every "
            'backend. Install them with: pip install "kerassl[tensorboard]"'
        )
    folder = str(run.folder / TENSORBOARD)
    return keras.callbacks.TensorBoard(folder, write_graph=False)
