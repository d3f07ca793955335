"""The loss of VISReg: views agree, with the scale and shape of a Gaussian."""

from typing import Any

from keras import ops

from kerassl.losses.lejepa import distance_to_center
from kerassl.losses.numbers import row_count


def visreg(
    projections: Any,
    directions: Any,
    num_centers: int,
    regularization_weight: float = 0.9,
    gathered: Any = None,
) -> dict[str, Any]:
    """Computes VISReg's loss from the projections of several views.

    The regularization is the sum of three terms, means over views:

    - center: the squared mean of each dimension over the images;
    - scale: the squared difference of its standard deviation from 1;
    - shape: see `sliced_wasserstein`.

    Args:
        projections: float tensor of shape `(N, V, D)`: N images, V views.
        directions: float tensor of shape `(S, D)`, rows of norm 1.
        num_centers: int in [1, V]. Every view is drawn to the mean of the
            first so many (`distance_to_center`).
        regularization_weight: float in [0, 1], the share of the three terms;
            the rest is the invariance's.
        gathered: float tensor of shape `(M, V, D)`, the projections of all
            devices, for the three terms. By default `projections`.

    Returns:
        A dict of float32 scalars: `"loss"`, and the unweighted `"invariance"`,
        `"center"`, `"scale"` and `"shape"`.

    Example:
    ```python
    z = keras.random.normal((256, 4, 64))
    directions = kerassl.losses.unit_vectors(keras.random.normal((4096, 64)))
    loss = kerassl.losses.visreg(z, directions, num_centers=4)["loss"]
    ```

    Reference:
        - [Wu et al., 2026](https://arxiv.org/abs/2606.02572)
    """
    invariance = distance_to_center(projections, num_centers)
    z = projections if gathered is None else gathered
    z = ops.cast(z, "float32")
    means = ops.mean(z, axis=0)
    centered = z - means
    variances = ops.mean(ops.square(centered), axis=0)
    # The small number keeps the root's gradient finite.
    deviations = ops.sqrt(variances + 1e-8)
    center = ops.mean(ops.square(means))
    scale = ops.mean(ops.square(1.0 - deviations))
    # The scale has a term of its own, and gets no gradient from the shape.
    standardized = centered / (ops.stop_gradient(deviations) + 1e-4)
    shape = sliced_wasserstein(standardized, directions)
    return {
        "loss": (1.0 - regularization_weight) * invariance
        + regularization_weight * (center + scale + shape),
        "invariance": invariance,
        "center": center,
        "scale": scale,
        "shape": shape,
    }


def sliced_wasserstein(samples: Any, directions: Any) -> Any:
    """Measures how far each view's samples are from a standard normal.

    Along each direction, the sorted samples are compared with the normal
    distribution's quantiles at 1 / (M + 1) to M / (M + 1): the squared
    Wasserstein distance of one dimension.

    Args:
        samples: float tensor of shape `(M, V, D)`. Each view's M rows are one
            sample.
        directions: float tensor of shape `(S, D)`, rows of norm 1.

    Returns:
        A float32 scalar >= 0, the mean over images, directions and views.

    Reference:
        - [Wu et al., 2026](https://arxiv.org/abs/2606.02572)
    """
    x = ops.matmul(
        ops.cast(samples, "float32"),
        ops.transpose(ops.cast(directions, "float32")),
    )
    places = ops.cast(ops.arange(1, ops.shape(x)[0] + 1), "float32")
    shares = places / (row_count(x) + 1.0)
    quantiles = 2**0.5 * ops.erfinv(2.0 * shares - 1.0)
    return ops.mean(ops.square(ops.sort(x, axis=0) - quantiles[:, None, None]))
