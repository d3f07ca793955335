"""The loss of LeJEPA: views agree, and projections look Gaussian."""

from typing import Any

import numpy as np
from keras import ops

from kerassl.losses.numbers import row_count

# Quadrature points on [0, 3], where the statistic is integrated. The integrand
# is even, so weights count twice: the trapezoid rule with a Gaussian window.
POINTS = np.linspace(0.0, 3.0, 17)
NORMAL = np.exp(-(POINTS**2) / 2)
WEIGHTS = np.full(17, 2 * POINTS[1]) * NORMAL
WEIGHTS[[0, -1]] /= 2
# Here, since PyTorch's compiler can't trace `tolist`.
_QUADRATURE = list(zip(POINTS.tolist(), NORMAL.tolist(), WEIGHTS.tolist()))


def lejepa(
    projections: Any,
    directions: Any,
    num_centers: int,
    regularization_weight: float = 0.05,
    gathered: Any = None,
) -> dict[str, Any]:
    """Computes LeJEPA's loss from the projections of several views.

    Args:
        projections: float tensor of shape `(N, V, D)`: N images, V views.
        directions: float tensor of shape `(S, D)`, rows of norm 1.
        num_centers: int in [1, V]. Every view is drawn to the mean of the
            first so many.
        regularization_weight: float in [0, 1], the share of `sigreg`; the rest
            is the invariance's.
        gathered: float tensor of shape `(M, V, D)`, the projections of all
            devices, for `sigreg`. By default `projections`.

    Returns:
        A dict of float32 scalars: `"loss"`, and the unweighted `"invariance"`
        (see `distance_to_center`) and `"sigreg"`.

    Example:
    ```python
    z = keras.random.normal((256, 4, 16))
    directions = kerassl.losses.unit_vectors(keras.random.normal((1024, 16)))
    loss = kerassl.losses.lejepa(z, directions, num_centers=4)["loss"]
    ```

    Reference:
        - [Balestriero and LeCun, 2025](https://arxiv.org/abs/2511.08544)
    """
    invariance = distance_to_center(projections, num_centers)
    statistic = sigreg(
        projections if gathered is None else gathered, directions
    )
    return {
        "loss": (1.0 - regularization_weight) * invariance
        + regularization_weight * statistic,
        "invariance": invariance,
        "sigreg": statistic,
    }


def distance_to_center(projections: Any, num_centers: int) -> Any:
    """Computes the mean squared distance of all views to an image's center.

    Args:
        projections: float tensor of shape `(N, V, D)`.
        num_centers: int in [1, V]. The center is the mean of the first so many
            views; gradients flow through it.

    Returns:
        A float32 scalar, the mean over images, views and dimensions.
    """
    z = ops.cast(projections, "float32")
    center = ops.mean(z[:, :num_centers], axis=1, keepdims=True)
    return ops.mean(ops.square(z - center))


def sigreg(projections: Any, directions: Any) -> Any:
    """Tests whether each view's projections are standard normal (SIGReg).

    Along each direction, Epps and Pulley's statistic compares the empirical
    characteristic function with that of the normal distribution, at 17 points.
    For M normal samples it doesn't depend on M; for others it grows with M.

    Args:
        projections: float tensor of shape `(M, V, D)`. Each view's M rows are
            one sample.
        directions: float tensor of shape `(S, D)`, rows of norm 1.

    Returns:
        A float32 scalar >= 0, the mean over directions and views.

    Reference:
        - [Balestriero and LeCun, 2025](https://arxiv.org/abs/2511.08544)
        - [Epps and Pulley, 1983](https://doi.org/10.1093/biomet/70.3.723)
    """
    z = ops.cast(projections, "float32")
    x = ops.matmul(z, ops.transpose(ops.cast(directions, "float32")))
    # Only the values and the slope of the sum are kept, not the 34 arrays of
    # cosines and sines that automatic differentiation would keep.
    fixed = ops.stop_gradient(x)
    statistic, slope = 0.0, 0.0
    for point, normal, weight in _QUADRATURE:
        cosines, sines = ops.cos(point * fixed), ops.sin(point * fixed)
        real = ops.mean(cosines, axis=0) - normal
        imaginary = ops.mean(sines, axis=0)
        statistic += weight * (ops.square(real) + ops.square(imaginary))
        slope += 2 * weight * point * (imaginary * cosines - real * sines)
    # The second term is 0, and has the gradient of the first.
    total = row_count(z) * ops.sum(statistic) + ops.sum(slope * (x - fixed))
    return total / (z.shape[1] * directions.shape[0])
