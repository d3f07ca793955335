"""Learning curves."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np

from kerassl.names import TIMES
from kerassl.visualization.figures import load_matplotlib, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Curves with at most this many points have a marker at each.
MARKED = 40


class Curve(NamedTuple):
    """The values of one metric.

    Args:
        x: float array `(N,)`: epochs, from 1.
        y: float array `(N,)`.
        unit: str, the unit of `x`: `"epoch"`, or `"evaluation"` if Keras's
            history doesn't record after which epochs a metric was measured.
    """

    x: np.ndarray
    y: np.ndarray
    unit: str = "epoch"


def learning_curves(
    history: Any, metrics: Sequence[str] | None = None
) -> "Figure":
    """Draws the loss and the metrics of a training over its epochs.

    Args:
        history: the `keras.callbacks.History` that `fit` returns, or the rows
            that `kerassl.runs.read_history` returns for a run's folder: a list
            of dicts with `"epoch"`, from 1, and metrics.
        metrics: names of metrics to draw; by default all, the loss first.

    Returns:
        A `matplotlib.figure.Figure` with one plot per metric.

    Raises:
        ImportError: without matplotlib.
        ValueError: if the history has another type or is empty, or a metric
            is unknown.

    Example:
    ```python
    history = kerassl.runs.read_history("runs/a")
    kerassl.visualization.learning_curves(history).savefig("curves.png")
    ```
    """
    figure_class = load_matplotlib()
    curves = read_curves(history)
    names = list(curves if metrics is None else metrics)
    missing = [name for name in names if name not in curves]
    if missing or not names:
        raise ValueError(
            f"`metrics` must be some of {list(curves)}. Received: {metrics}"
        )
    columns = min(len(names), 2)
    rows = -(-len(names) // columns)
    size = (3.6 * columns, 2.6 * rows)
    figure = figure_class(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, name in zip(axes, names):
        x, y, unit = curves[name]
        axis.plot(x, y, marker="." if len(x) <= MARKED else None)
        title = plain(name.replace("_", " "), 40)
        axis.set_title(title, fontsize="small", parse_math=False)
        axis.set_xlabel(unit, fontsize="small")
        axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axis.tick_params(labelsize="small")
        axis.grid(alpha=0.3)
    for axis in axes[len(names) :]:
        axis.remove()
    return figure


def read_curves(history: Any) -> dict[str, Curve]:
    """Returns the curves that `learning_curves` draws.

    Args:
        history: as in `learning_curves`.

    Returns:
        A dict from name to `Curve`, the loss first. Epochs without a value are
        left out.

    Raises:
        ValueError: if the history has another type or is empty.
    """
    if isinstance(history, keras.callbacks.History):
        curves = _of_history(history)
    elif isinstance(history, (list, tuple)):
        curves = _of_rows(history)
    else:
        raise ValueError(
            "`history` must be the History that `fit` returns, or the rows of "
            "a run: `kerassl.runs.read_history(folder)`. Received: "
            f"{type(history).__name__}"
        )
    if not curves:
        raise ValueError("There are no learning curves: no epoch is finished.")
    return curves


def _of_rows(rows: Sequence[dict[str, float]]) -> dict[str, Curve]:
    names = dict.fromkeys(name for row in rows for name in row)
    curves = {}
    for name in names:
        if name != "epoch" and name not in TIMES:
            found = [(row["epoch"], row[name]) for row in rows if name in row]
            curves[name] = Curve(*np.array(found).T)
    return curves


def _of_history(history: keras.callbacks.History) -> dict[str, Curve]:
    epochs = 1.0 + np.array(history.epoch)
    curves = {}
    # The loss first, as in a run's history.
    for name in sorted(history.history, key=lambda name: name != "loss"):
        y = np.array(history.history[name], "float64")
        if len(y) == len(epochs):
            curves[name] = Curve(epochs, y)
        else:
            curves[name] = Curve(1.0 + np.arange(len(y)), y, "evaluation")
    return curves
