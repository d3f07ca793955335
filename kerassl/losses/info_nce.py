"""InfoNCE: a query has to tell its key from others, the loss of MoCo."""

from typing import Any

from keras import ops

from kerassl.losses.unit_vectors import unit_vectors


def info_nce(
    queries: Any,
    keys: Any,
    temperature: float = 0.2,
    negatives: Any = None,
    rows: Any = None,
) -> dict[str, Any]:
    """Computes the InfoNCE loss of queries, each with one key.

    Each query has to pick its key among others by cosine similarity: among the
    queue's features if `negatives` are given (MoCo v1 and v2), else among the
    keys of the other images of the batch (MoCo v3). The loss is the mean cross
    entropy.

    Args:
        queries: float tensor of shape `(N, D)`, of any scale: the function
            normalizes it.
        keys: float tensor of shape `(N, D)`, likewise; row `i` belongs to query
            `i`.
        temperature: float > 0. The similarities in [-1, 1] are divided by it.
        negatives: float tensor of shape `(K, D)` of unit vectors, or `None`.
        rows: int tensor of shape `(N,)`, without negatives: where each query's
            key is among the keys, which may then be more. By default row `i`.

    Returns:
        A dict of float32 scalars: `"loss"`, at chance about `log(1 + K)`, or
        `log(N)` without negatives; and `"contrastive_accuracy"`, the share in
        [0, 1] of queries that pick their key.

    Example:
    ```python
    negatives = queue.snapshot()                          # (65536, 128)
    loss = kerassl.losses.info_nce(q, k, 0.2, negatives)["loss"]
    ```

    Reference:
        - [He et al., 2020, MoCo](https://arxiv.org/abs/1911.05722)
        - facebookresearch/moco, `moco/builder.py`
    """
    # Half precision would overflow in the logits' exponentials.
    # Queries are scaled, and not the logits, which are far larger.
    queries = unit_vectors(queries) / temperature
    keys = unit_vectors(keys)
    if negatives is None:
        logits = ops.matmul(queries, ops.transpose(keys))
        if rows is None:
            rows = ops.arange(ops.shape(logits)[0])
        # Not a sum of its own: rounding would hide that it's the row's maximum.
        positive = ops.take_along_axis(logits, rows[:, None], axis=1)[:, 0]
        # The row holds the positive itself.
        total = ops.logsumexp(logits, axis=-1)
        picked = ops.argmax(logits, axis=-1)
        picked = ops.equal(ops.cast(picked, rows.dtype), rows)
    else:
        positive = ops.sum(queries * keys, axis=-1)
        negatives = ops.cast(negatives, "float32")
        logits = ops.matmul(queries, ops.transpose(negatives))
        total = ops.logaddexp(positive, ops.logsumexp(logits, axis=-1))
        # Equal ones aren't told apart: collapse has no accuracy.
        picked = positive > ops.max(logits, axis=-1)
    return {
        "loss": ops.mean(total - positive),
        "contrastive_accuracy": ops.mean(ops.cast(picked, "float32")),
    }
