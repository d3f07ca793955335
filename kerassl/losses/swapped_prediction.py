"""SwAV's loss: predict one view's prototype assignment from another view."""

from collections.abc import Callable, Sequence
from typing import Any

from keras import ops

from kerassl.losses.nt_xent import MASKED


def sinkhorn(
    scores: Any,
    epsilon: float = 0.05,
    iterations: int = 3,
    taking_part: Any = None,
    gather: Callable[[Any], Any] | None = None,
) -> Any:
    """Assigns samples to prototypes so that all prototypes are used equally.

    Columns and rows of `exp(scores / epsilon)` are normalized in turn
    (Sinkhorn-Knopp). It computes in float32, and the first iteration in
    logarithms, so that no exponential overflows or vanishes; the result is the
    same.

    Args:
        scores: float tensor of shape `(N, K)`, cosine similarities.
        epsilon: float > 0. Small values give sharp assignments, large values
            uniform ones.
        iterations: int > 0.
        taking_part: float tensor of shape `(N,)` of 0 and 1, or `None`. Rows
            with 0 are left out and become zeros; at least one row must be 1.
        gather: `kerassl.distributed.gather`, if the samples are those of one
            device and the assignments those of all. Only sums of columns are
            exchanged.

    Returns:
        A float32 tensor of shape `(N, K)` whose rows sum to 1, without a
        gradient.

    Reference:
        - [Caron et al., 2020, SwAV](https://arxiv.org/abs/2006.09882), A.1
        - facebookresearch/swav, `main_swav.py`
    """

    def of_all(reduction: Callable, own: Any) -> Any:
        found = own if gather is None else gather(own)
        return own if found is own else reduction(found, axis=0, keepdims=True)

    logits = ops.stop_gradient(ops.cast(scores, "float32")) / epsilon
    left_out: Any = 0.0
    if taking_part is not None:
        left_out = 1.0 - ops.cast(taking_part, logits.dtype)[:, None]
        logits = logits + MASKED * left_out
    # Not `logsumexp`: where an exponential underflows, PyTorch's on CPUs takes
    # many times as long. Softmax has one of its own.
    shares = ops.log_softmax(logits, axis=0)
    if gather is not None:
        own = (ops.max(logits, axis=0) - ops.max(shares, axis=0))[None]
        total = of_all(ops.logsumexp, own)
        if total is not own:
            shares = shares + (own - total)
    # After the first iteration, in logarithms, each row and each column has an
    # entry of at least 1 / (N * K), so nothing vanishes in later ones.
    q = ops.softmax(shares, axis=1)
    if taking_part is not None:
        q = (1.0 - left_out) * q
    for _ in range(iterations - 1):
        q = q / of_all(ops.sum, ops.sum(q, axis=0, keepdims=True))
        # Rows that are left out are divided by 1, not by something tiny: XLA
        # divides by the product of all sums at once, which would be 0.
        q = q / (ops.sum(q, axis=1, keepdims=True) + left_out)
    return q


def swapped_prediction(
    scores: Sequence[Any],
    assignments: Sequence[Any],
    temperature: float = 0.1,
) -> dict[str, Any]:
    """Computes SwAV's loss for views and the assignments of the first ones.

    Each assignment is predicted from every other view: the loss is the
    cross-entropy between the assignment and the view's softmax over prototypes,
    averaged over views, assignments and the batch.

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
