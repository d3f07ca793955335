"""The loss of VICReg: invariance, variance and covariance."""

from typing import Any

from keras import ops

from kerassl.losses.covariance import squared_norm_of_product
from kerassl.losses.numbers import at_least, row_count


def vicreg(
    projection_1: Any,
    projection_2: Any,
    invariance_weight: float = 25.0,
    variance_weight: float = 25.0,
    covariance_weight: float = 1.0,
) -> dict[str, Any]:
    """Computes the three terms of VICReg and their weighted sum.

    - invariance: the mean squared difference of the projections;
    - variance: by how much each dimension's standard deviation over the batch
      falls short of 1, averaged over dimensions and both projections;
    - covariance: the sum of the squared covariances of different dimensions,
      divided by D, summed over both projections.

    Args:
        projection_1: float tensor of shape `(N, D)`. For N = 1 the variances
            are 0.
        projection_2: float tensor of shape `(N, D)`; row `i` shows the same
            image as row `i` of `projection_1`.
        invariance_weight: float >= 0.
        variance_weight: float >= 0.
        covariance_weight: float >= 0.

    Returns:
        A dict of float32 scalars: `"loss"`, and the unweighted
        `"invariance"`, `"variance"` (in [0, 1]; 1 is collapse) and
        `"covariance"`.

    Example:
    ```python
    z1 = keras.random.normal((256, 8192))
    z2 = keras.random.normal((256, 8192))
    loss = kerassl.losses.vicreg(z1, z2)["loss"]
    ```

    Reference:
        - [Bardes et al., 2021](https://arxiv.org/abs/2105.04906)
        - facebookresearch/vicreg, `main_vicreg.py`
    """
    z1 = ops.cast(projection_1, "float32")
    z2 = ops.cast(projection_2, "float32")
    invariance = ops.mean(ops.square(z1 - z2))
    terms = [_variance_and_covariance(z) for z in (z1, z2)]
    variance = (terms[0][0] + terms[1][0]) / 2
    covariance = terms[0][1] + terms[1][1]
    loss = (
        invariance_weight * invariance
        + variance_weight * variance
        + covariance_weight * covariance
    )
    return {
        "loss": loss,
        "invariance": invariance,
        "variance": variance,
        "covariance": covariance,
    }


def _variance_and_covariance(z: Any) -> tuple[Any, Any]:
    z = z - ops.mean(z, axis=0)
    # N - 1, but at least 1, for a batch of a single image in `evaluate`.
    degrees = at_least(row_count(z) - 1.0, 1.0)
    variances = ops.sum(ops.square(z), axis=0) / degrees
    # The small number keeps the root's gradient finite.
    shortfall = ops.mean(ops.relu(1.0 - ops.sqrt(variances + 1e-4)))
    all_squares = squared_norm_of_product(z, z) / degrees**2
    off_diagonal = all_squares - ops.sum(ops.square(variances))
    return shortfall, off_diagonal / z.shape[-1]
