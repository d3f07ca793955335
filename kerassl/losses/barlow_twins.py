"""The loss of Barlow Twins: the cross-correlation should be the identity."""

from typing import Any

from keras import ops

from kerassl.losses.covariance import squared_norm_of_product
from kerassl.losses.numbers import row_count

# As in the authors' batch normalization.
EPSILON = 1e-5


def barlow_twins(
    projection_1: Any, projection_2: Any, off_diagonal_weight: float = 0.0051
) -> dict[str, Any]:
    """Computes the loss of Barlow Twins.

    `C`, of shape `(D, D)`, is the correlation over the batch between each
    dimension of one projection and each dimension of the other. The loss is
    `sum_i (1 - C_ii)^2 + weight * sum_(i != j) C_ij^2`. If the batch is smaller
    than D, `C` itself is never computed.

    Args:
        projection_1: float tensor of shape `(N, D)`, of any scale: each
            dimension is normalized over the batch.
        projection_2: float tensor of shape `(N, D)`; row `i` shows the same
            image as row `i` of `projection_1`.
        off_diagonal_weight: float >= 0, the paper's lambda.

    Returns:
        A dict of float32 scalars: `"loss"`; `"on_diagonal"`, the mean of the
        diagonal, in [-1, 1], which should reach 1; and `"off_diagonal"`, the
        root mean square of the rest, which should reach 0 and is about
        `1 / sqrt(N)` for independent dimensions.

    Example:
    ```python
    z1 = keras.random.normal((256, 8192))
    z2 = keras.random.normal((256, 8192))
    loss = kerassl.losses.barlow_twins(z1, z2)["loss"]
    ```

    Reference:
        - [Zbontar et al., 2021](https://arxiv.org/abs/2103.03230)
        - facebookresearch/barlowtwins, `main.py`
    """
    z1, z2 = standardize(projection_1), standardize(projection_2)
    count = row_count(z1)
    dim = z1.shape[-1]
    diagonal = ops.sum(z1 * z2, axis=0) / count
    all_squares = squared_norm_of_product(z1, z2) / count**2
    # Rounding may make the difference slightly negative.
    off_diagonal = ops.relu(all_squares - ops.sum(ops.square(diagonal)))
    loss = (
        ops.sum(ops.square(1.0 - diagonal)) + off_diagonal_weight * off_diagonal
    )
    pairs = max(dim * (dim - 1), 1)
    return {
        "loss": loss,
        "on_diagonal": ops.mean(diagonal),
        "off_diagonal": ops.sqrt(ops.stop_gradient(off_diagonal) / pairs),
    }


def cross_correlation(projection_1: Any, projection_2: Any) -> Any:
    """Computes the matrix that `barlow_twins` compares with the identity.

    Args:
        projection_1: float tensor of shape `(N, D)`.
        projection_2: float tensor of shape `(N, D)`.

    Returns:
        A float32 tensor of shape `(D, D)`, values in [-1, 1].
    """
    z1, z2 = standardize(projection_1), standardize(projection_2)
    count = ops.cast(ops.shape(z1)[0], "float32")
    return ops.matmul(ops.transpose(z1), z2) / count


def standardize(z: Any) -> Any:
    """Returns float32 `z` with mean 0 and variance 1 over the batch."""
    z = ops.cast(z, "float32")
    z = z - ops.mean(z, axis=0)
    return z * ops.rsqrt(ops.mean(ops.square(z), axis=0) + EPSILON)
