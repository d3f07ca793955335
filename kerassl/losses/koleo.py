"""KoLeo: each feature keeps away from its nearest neighbor."""

from typing import Any

from keras import ops

from kerassl.losses.nt_xent import MASKED
from kerassl.losses.numbers import has_others
from kerassl.losses.unit_vectors import unit_vectors

# As in DINOv2's code: added to the differences, and to the distance.
EPSILON = 1e-8


def koleo(features: Any, rows: Any = None) -> dict[str, Any]:
    """Computes DINOv2's regularizer: features spread evenly on the sphere.

    The mean of the negative logarithms of the distances from each unit vector
    to its nearest neighbor, after Kozachenko and Leonenko's estimate of
    entropy.

    Args:
        features: float tensor of shape `(N, D)`, of any scale: the function
            normalizes it.
        rows: int tensor `(M,)`, or `None` for all: those whose distances are
            averaged. Neighbors are sought among all.

    Returns:
        A dict with `"loss"`, a float32 scalar: at least -ln(2), and about 15
        for features that are all the same (15.4 for D = 384). It is 0 for
        N = 1, which has no neighbor.

    Example:
    ```python
    loss = kerassl.losses.koleo(features)["loss"]
    ```

    Reference:
        - [Sablayrolles et al., 2018](https://arxiv.org/abs/1806.03198)
        - [Oquab et al., 2023, DINOv2](https://arxiv.org/abs/2304.07193)
    """
    x = unit_vectors(features)
    everyone = ops.arange(ops.shape(x)[0])
    index, anchors = everyone, x
    if rows is not None:
        index = ops.cast(rows, everyone.dtype)
        anchors = ops.take(x, index, axis=0)
    itself = ops.cast(ops.equal(index[:, None], everyone[None, :]), "float32")
    similar = ops.matmul(anchors, ops.transpose(x)) + MASKED * itself
    nearest = ops.take(x, ops.argmax(similar, axis=-1), axis=0)
    squares = ops.sum(ops.square(anchors - nearest + EPSILON), axis=-1)
    entropy = ops.mean(ops.log(ops.sqrt(squares) + EPSILON))
    return {"loss": -has_others(x) * entropy}
