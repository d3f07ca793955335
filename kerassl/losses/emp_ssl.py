"""The loss of EMP-SSL: patches agree, and images fill the space."""

from typing import Any

from keras import ops

from kerassl.losses.numbers import row_count
from kerassl.losses.unit_vectors import unit_vectors


def emp_ssl(
    projections: Any,
    invariance_weight: float = 200.0,
    epsilon: float = 0.2,
    gathered: Any = None,
) -> dict[str, Any]:
    """Computes EMP-SSL's loss from the projections of many patches.

    Args:
        projections: float tensor of shape `(N, V, D)`, of any scale: N images,
            V patches.
        invariance_weight: float >= 0, of the mean cosine similarity of patches
            and their image's mean. The coding rate has the weight 1.
        epsilon: float > 0, of `coding_rate`.
        gathered: float tensor of shape `(M, V, D)`, the projections of all
            devices, for the coding rate. By default `projections`.

    Returns:
        A dict of float32 scalars: `"loss"`, and the unweighted `"similarity"`,
        in [-1, 1], and `"coding_rate"`, both of which it maximizes.

    Example:
    ```python
    z = keras.random.normal((100, 20, 1024))
    loss = kerassl.losses.emp_ssl(z)["loss"]
    ```

    Reference:
        - [Tong et al., 2023](https://arxiv.org/abs/2304.03977)
    """
    z = unit_vectors(projections)
    center = unit_vectors(ops.mean(z, axis=1, keepdims=True))
    similarity = ops.mean(ops.sum(z * center, axis=-1))
    z = z if gathered is None else unit_vectors(gathered)
    rate = coding_rate(ops.transpose(z, (1, 0, 2)), epsilon)
    return {
        "loss": -invariance_weight * similarity - rate,
        "similarity": similarity,
        "coding_rate": rate,
    }


def coding_rate(samples: Any, epsilon: float = 0.2) -> Any:
    """Computes the total coding rate of samples, in nats.

    It is `logdet(I + D / (M epsilon) Z^T Z) / 2`, and grows as the M samples Z
    spread over more dimensions. The determinant of the M x M matrix with
    `Z Z^T` is the same; the smaller matrix is used.

    Args:
        samples: float tensor of shape `(V, M, D)`: V sets of samples.
        epsilon: float > 0, the squared error that the code allows.

    Returns:
        A float32 scalar, the mean over the sets.

    Reference:
        - [Yu et al., 2020](https://arxiv.org/abs/2006.08558)
    """
    z = ops.cast(samples, "float32")
    _, count, dim = z.shape
    turned = ops.transpose(z, (0, 2, 1))
    # M may be unknown on TensorFlow; it rarely exceeds a wide projector's D.
    is_long = count is not None and count > dim
    gram = ops.matmul(turned, z) if is_long else ops.matmul(z, turned)
    scale = dim / epsilon / row_count(z[0])
    identity = ops.eye(ops.shape(gram)[-1], dtype="float32")
    root = ops.cholesky(identity + scale * gram)
    diagonals = ops.diagonal(root, axis1=-2, axis2=-1)
    # Half of the log-determinant, which is twice the root's.
    return ops.mean(ops.sum(ops.log(diagonals), axis=-1))
