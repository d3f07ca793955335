"""What Barlow Twins and VICReg have in common: sums over D x D matrices."""

from typing import Any

from keras import ops


def squared_norm_of_product(a: Any, b: Any) -> Any:
    """Computes the sum of the squared entries of `transpose(a) @ b`.

    That matrix is D x D: 256 MB for the papers' 8192, and its gradient again.
    The same sum is that of the entries of `(a @ aT) * (b @ bT)`, two matrices
    of N x N; the smaller way is taken.

    Args:
        a: float32 tensor of shape `(N, D)`.
        b: float32 tensor of shape `(N, D)`.

    Returns:
        A float32 scalar.
    """
    count, dim = a.shape
    # TensorFlow may not know N; batches seldom reach a wide projector's D.
    if count is None or count < dim:
        gram_a = ops.matmul(a, ops.transpose(a))
        gram_b = gram_a if b is a else ops.matmul(b, ops.transpose(b))
        return ops.sum(gram_a * gram_b)
    return ops.sum(ops.square(ops.matmul(ops.transpose(a), b)))
