"""Rows of norm 1, with a gradient that is always finite."""

from typing import Any

from keras import ops


def unit_vectors(x: Any) -> Any:
    """Scales each row to norm 1, in float32; rows of zeros stay zeros.

    `keras.ops.normalize` has NaN gradients for rows of zeros, which a ReLU
    before a layer without bias can produce.

    Args:
        x: float tensor of shape `(N, D)`.

    Returns:
        A float32 tensor of shape `(N, D)`.

    Example:
    ```python
    z = kerassl.losses.unit_vectors(projections)
    ```
    """
    x = ops.cast(x, "float32")
    squares = ops.sum(ops.square(x), axis=-1, keepdims=True)
    # Select before the root: the unselected root's gradient would otherwise be
    # 0 times infinity.
    squares = ops.where(squares > 1e-24, squares, ops.ones_like(squares))
    return x * ops.rsqrt(squares)
