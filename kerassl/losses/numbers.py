"""Arithmetic with numbers that PyTorch needn't send to the device."""

from typing import Any

from keras import ops


def at_least(x: Any, low: float) -> Any:
    """Returns the maximum of a tensor, or a float, and a number.

    `keras.ops.maximum` makes the host wait for a GPU on PyTorch.
    """
    if isinstance(x, float):
        return max(x, low)
    return ops.relu(x - low) + low


def row_count(x: Any) -> Any:
    """Returns the length of the first axis: a float, or a float32 scalar."""
    count = ops.shape(x)[0]
    return (
        float(count) if isinstance(count, int) else ops.cast(count, "float32")
    )


def has_others(x: Any) -> Any:
    """Returns 1 if there are several rows, else 0: a float or a scalar."""
    return 1.0 - at_least(2.0 - row_count(x), 0.0)
