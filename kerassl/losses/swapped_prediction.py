"""SwAV's loss: predict one view's prototypes from another view."""

from collections.abc import Sequence
from typing import Any

from keras import ops


def sinkhorn(
    scores: Any,
    epsilon: float = 0.05,
    iterations: int = 3,
    taking_part: Any = None,
) -> Any:
    """Assigns samples to prototypes so that all prototypes are used equally.

    Rows and columns of `exp(scores / epsilon)` are normalized in turn
    (Sinkhorn-Knopp). It works in float32, and the first round in logarithms, so
    that no exponential overflows or vanishes; the result doesn't change by
    that.

    Args:
        scores: float tensor of shape `(N, K)`, cosine similarities.
        epsilon: float > 0. Small: sharp assignments; large: uniform ones.
        iterations: int > 0.
        taking_part: float tensor of shape `(N,)` of 0 and 1, or `None`. Rows
            with 0 are left out, and get zeros; at least one row takes part.

    Returns:
        A float32 tensor of shape `(N, K)`, rows that sum to 1. No gradient
        passes.

    Reference:
        - [Caron et al., 2020, SwAV](https://arxiv.org/abs/2006.09882), A.1
        - facebookresearch/swav, `main_swav.py`
    """
    logits = ops.stop_gradient(ops.cast(scores, "float32")) / epsilon
    # The first round in logarithms: after it, each row and each column has an
    # entry of at least 1 / (N * K), and nothing vanishes any more.
    if taking_part is None:
        columns = ops.logsumexp(logits, axis=0, keepdims=True)
        q = ops.softmax(logits - columns, axis=1)
    else:
        takes_part = taking_part[:, None] > 0
        columns = ops.logsumexp(
            ops.where(takes_part, logits, -1e9), axis=0, keepdims=True
        )
        q = ops.where(takes_part, ops.softmax(logits - columns, axis=1), 0.0)
    for _ in range(iterations - 1):
        q = q / ops.sum(q, axis=0, keepdims=True)
        # Rows that are left out are zeros: nothing is divided by 0.
        q = q / ops.maximum(ops.sum(q, axis=1, keepdims=True), 1e-30)
    return q


def swapped_prediction(
    scores: Sequence[Any],
    assignments: Sequence[Any],
    temperature: float = 0.1,
) -> dict[str, Any]:
    """Computes SwAV's loss of views and the assignments of the first ones.

    Each assignment is predicted from every other view: the cross entropy
    between it and the view's softmax over prototypes, as a mean over the
    views, over the assignments and over the batch.

    Args:
        scores: for each view, a float tensor of shape `(N, K)`, the cosine
            similarities with the prototypes.
        assignments: for each of the first views, a float tensor of shape
            `(N, K)` of rows that sum to 1.
        temperature: float > 0.

    Returns:
        A dict with `"loss"`, a float32 scalar; `log(K)` if the predictions
        are uniform.

    Example:
    ```python
    assignments = [kerassl.losses.sinkhorn(s) for s in scores[:2]]
    loss = kerassl.losses.swapped_prediction(scores, assignments)["loss"]
    ```

    Reference:
        - [Caron et al., 2020, SwAV](https://arxiv.org/abs/2006.09882)
    """
    log_predictions = [
        ops.log_softmax(ops.cast(s, "float32") / temperature, axis=-1)
        for s in scores
    ]
    losses = [
        -ops.mean(ops.sum(assignment * prediction, axis=-1))
        for i, assignment in enumerate(assignments)
        for v, prediction in enumerate(log_predictions)
        if v != i
    ]
    return {"loss": sum(losses) / len(losses)}
