"""What a run can watch by itself: the callbacks of `kerassl pretrain`."""

import importlib.util
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from kerassl import callbacks, data
from kerassl.choices import check_choice
from kerassl.names import MONITORS
from kerassl.run_folder import TENSORBOARD
from kerassl.runs.run import Run

# Images that monitors learn from, classify, and look at for collapse.
BANK, QUERIES, FEW = 10_000, 2_000, 512


def monitors(
    run: Run, names: Sequence[str], every: int | None = None
) -> list[keras.callbacks.Callback]:
    """Returns monitors of a run, on the images and labels of its data.

    Args:
        run: `Run`.
        names: `"knn"`, `"linear"` (both need labels and test images) or
            `"collapse"`.
        every: int > 0, epochs between two looks; by default each monitor's.

    Returns:
        A list of callbacks for `Run.train`.

    Raises:
        ValueError: if there is no such monitor, or the data have no labels or
            no test images.

    Example:
    ```python
    run = kerassl.runs.start("runs/a", recipe, "cifar10")
    run.train(kerassl.runs.monitors(run, ["knn"]))
    ```
    """
    for name in names:
        check_choice("monitor", name, MONITORS)
    options: dict[str, Any] = {} if every is None else {"every": every}
    labelled: dict[str, Any] = {}
    if {"knn", "linear"} & set(names):
        test = data.load(
            run.settings["data"],
            "test",
            image_size=run.data.image_shape[:2],
            limit=QUERIES,
            data_dir=run.settings["data_dir"],
            max_unreadable=run.settings["max_unreadable"],
        )
        labelled = {"train": _spread(run.data, BANK), "test": test}
    made: list[keras.callbacks.Callback] = []
    for name in names:
        if name == "knn":
            k = min(20, len(labelled["train"].images))
            made.append(callbacks.KNNMonitor(**labelled, k=k, **options))
        elif name == "linear":
            made.append(callbacks.LinearProbeMonitor(**labelled, **options))
        else:
            few = _spread(run.data, FEW)
            made.append(callbacks.CollapseMonitor(few, **options))
    return made


def tensorboard(run: Run) -> keras.callbacks.Callback:
    """Returns a callback that writes a run's `tensorboard` folder.

    Args:
        run: `Run`.

    Raises:
        ImportError: without TensorFlow and TensorBoard, which write it under
            every backend.
    """
    lacking = [
        name
        for name in ("tensorflow", "tensorboard")
        if importlib.util.find_spec(name) is None
    ]
    if lacking:
        raise ImportError(
            f"TensorBoard's files are written by {' and '.join(lacking)}, "
            'under every backend: pip install "kerassl[tensorboard]"'
        )
    folder = str(run.folder / TENSORBOARD)
    return keras.callbacks.TensorBoard(folder, write_graph=False)


def _spread(images: data.ImageData, count: int) -> data.ImageData:
    """Returns so many images from all over: the first may be of one class."""
    total = len(images.images)
    if total <= count:
        return images
    return images.select(np.arange(count) * total // count)
