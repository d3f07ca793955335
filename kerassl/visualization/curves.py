"""Pictures of how a run went."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np

from kerassl.run_folder import TIMES, read_rows
from kerassl.visualization.pictures import load_matplotlib, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# So many points, and less, are drawn one by one.
MARKED = 40


class Curve(NamedTuple):
    """The values of one metric.

    Args:
        x: float array `(N,)`: epochs, from 1.
        y: float array `(N,)`.
        unit: str, what `x` counts: `"epoch"`; or `"evaluation"` where Keras's
            history doesn't tell after which epochs.
    """

    x: np.ndarray
    y: np.ndarray
    unit: str = "epoch"


def learning_curves(
    history: Any, metrics: Sequence[str] | None = None
) -> "Figure":
    """Draws the loss and the metrics of a run over its epochs.

    Args:
        history: the folder of a run, or the `keras.callbacks.History` that
            `fit` returns.
        metrics: names of what to draw; by default all, the loss first.

    Returns:
        A `matplotlib.figure.Figure` with an axis for each.

    Raises:
        ImportError: without matplotlib.
        FileNotFoundError: if the folder has no history.
        ValueError: if the history is broken or empty, or there is no such
            metric.

    Example:
    ```python
    kerassl.visualization.learning_curves("runs/a").savefig("curves.png")
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
    """Returns what `learning_curves` draws.

    Args:
        history: as in `learning_curves`.

    Returns:
        A dict of name to `Curve`, the loss first. Epochs in which a metric
        wasn't measured are left out.

    Raises:
        FileNotFoundError: as in `learning_curves`.
        ValueError: likewise.
    """
    if isinstance(history, keras.callbacks.History):
        curves = _of_history(history)
    elif isinstance(history, (str, Path)):
        curves = _of_rows(read_rows(history))
    else:
        raise ValueError(
            "Learning curves are of a run's folder, or of the History that "
            f"`fit` returns. Received: {type(history).__name__}"
        )
    if not curves:
        raise ValueError("There are no learning curves: no epoch is finished.")
    return curves


def _of_rows(rows: list[dict[str, float]]) -> dict[str, Curve]:
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
