"""Sums over D x D matrices, for Barlow Twins and VICReg."""

from typing import Any

from keras import ops


def squared_norm_of_product(a: Any, b: Any) -> Any:
    """Computes the sum of the squared entries of `transpose(a) @ b`.

    That matrix is D x D: 256 MB for the papers' D = 8192, plus its gradient.
    The entries of `(a @ aT) * (b @ bT)`, a product of N x N matrices, have the
    same sum. The smaller matrices are used.

    Args:
        a: float32 tensor of shape `(N, D)`.
        b: float32 tensor of shape `(N, D)`.

    Returns:
        A float32 scalar.
    """
    count, dim = a.shape
    # N may be unknown on TensorFlow; it rarely exceeds a wide projector's D.
    if count is None or count < dim:
        gram_a = ops.matmul(a, ops.transpose(a))
        gram_b = gram_a if b is a else ops.matmul(b, ops.transpose(b))
        return ops.sum(gram_a * gram_b)
    return ops.sum(ops.square(ops.matmul(ops.transpose(a), b)))
