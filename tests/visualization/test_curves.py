"""Learning curves, of runs and of Keras's history."""

import keras
import numpy as np
import pytest

from kerassl import runs, visualization

ROWS = """\
epoch,loss,knn_accuracy,seconds,images_per_second
1,3.5,,2.0,100.0
2,nan,0.5,2.0,100.0
3,2.5,0.6,2.0,100.0
"""


@pytest.fixture
def rows(tmp_path):
    (tmp_path / "history.csv").write_text(ROWS)
    return runs.read_history(tmp_path)


def history(**values):
    made = keras.callbacks.History()
    made.epoch, made.history = [4, 5, 6], values
    return made


def drawn(figure):
    """Returns the points of each axis by its title."""
    return {
        axis.get_title(): axis.lines[0].get_xydata().tolist()
        for axis in figure.axes
    }


def test_curves_of_a_run(rows):
    figure = visualization.learning_curves(rows)
    points = drawn(figure)
    assert list(points) == ["loss", "knn accuracy"]
    assert points["knn accuracy"] == [[2, 0.5], [3, 0.6]]
    assert points["loss"][0] == [1, 3.5] and np.isnan(points["loss"][1][1])
    assert {axis.get_xlabel() for axis in figure.axes} == {"epoch"}
    figure.canvas.draw()
    for axis in figure.axes:
        assert all(tick == round(tick) for tick in axis.get_xticks())
    figure = visualization.learning_curves(rows, ["loss"])
    assert list(drawn(figure)) == ["loss"]


def test_curves_of_keras():
    made = history(accuracy=[0.1, 0.2, 0.3], loss=[3, 2, 1], knn=[0.5, 0.6])
    points = drawn(visualization.learning_curves(made))
    assert list(points) == ["loss", "accuracy", "knn"]
    assert points["loss"] == [[5, 3], [6, 2], [7, 1]]
    # Keras doesn't say after which epochs.
    curves = visualization.read_curves(made)
    assert points["knn"] == [[1, 0.5], [2, 0.6]]
    assert curves["knn"].unit == "evaluation" and curves["loss"].unit == "epoch"


def test_a_single_epoch_has_one_whole_tick():
    (axis,) = visualization.learning_curves([{"epoch": 1, "loss": 3.5}]).axes
    low, high = axis.get_xlim()
    assert [t for t in axis.get_xticks() if low <= t <= high] == [1]


def test_what_is_no_history_is_refused(rows):
    with pytest.raises(ValueError, match="no epoch is finished"):
        visualization.learning_curves([])
    with pytest.raises(ValueError, match="read_history.*Received: dict"):
        visualization.learning_curves({"loss": [1.0]})
    with pytest.raises(ValueError, match="read_history.*Received: str"):
        visualization.learning_curves("runs/a")
    with pytest.raises(ValueError, match=r"\['loss', 'knn_accuracy'\].*los"):
        visualization.learning_curves(rows, ["los"])
