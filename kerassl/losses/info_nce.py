"""InfoNCE, the loss of MoCo: a query has to identify its key among others."""

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
    """Computes the InfoNCE loss of queries with one key each.

    Each query has to identify its key by cosine similarity: against
    `negatives`, the features of a queue (MoCo v1 and v2); or without them
    against the keys of the other images in the batch (MoCo v3). The loss is the
    mean cross-entropy.

    Args:
        queries: float tensor of shape `(N, D)`, of any scale: the function
            normalizes it.
        keys: float tensor of shape `(N, D)`, of any scale; row `i` belongs to
            query `i`.
        temperature: float > 0. The similarities in [-1, 1] are divided by it.
        negatives: float tensor of shape `(K, D)` of unit vectors, or `None`.
        rows: int tensor of shape `(N,)`, only without negatives: the index of
            each query's key in `keys`, which may then have more rows. By
            default `i` for query `i`.

    Returns:
        A dict of float32 scalars: `"loss"`, at chance about `log(1 + K)`, or
        `log(N)` without negatives; and `"contrastive_accuracy"`, the share in
        [0, 1] of queries that identify their key.

    Example:
    ```python
    negatives = queue.snapshot()                          # (65536, 128)
    loss = kerassl.losses.info_nce(q, k, 0.2, negatives)["loss"]
    ```

    Reference:
        - [He et al., 2020, MoCo](https://arxiv.org/abs/1911.05722)
        - facebookresearch/moco, `moco/builder.py`
    """
    # Float32, since half precision overflows in the logits' exponentials.
    # Scaling the queries is cheaper than scaling the logits.
    queries = unit_vectors(queries) / temperature
    keys = unit_vectors(keys)
    if negatives is None:
        logits = ops.matmul(queries, ops.transpose(keys))
        if rows is None:
            rows = ops.arange(ops.shape(logits)[0])
        # Read from the logits: computed separately, rounding could make it
        # differ from the row's maximum.
        positive = ops.take_along_axis(logits, rows[:, None], axis=1)[:, 0]
        # Each row of logits includes the positive.
        total = ops.logsumexp(logits, axis=-1)
        picked = ops.argmax(logits, axis=-1)
        picked = ops.equal(ops.cast(picked, rows.dtype), rows)
    else:
        positive = ops.sum(queries * keys, axis=-1)
        negatives = ops.cast(negatives, "float32")
        logits = ops.matmul(queries, ops.transpose(negatives))
        total = ops.logaddexp(positive, ops.logsumexp(logits, axis=-1))
        # A tie doesn't count, so that a collapse has an accuracy of 0.
        # `ops.max` can't be traced by PyTorch's compiler.
        picked = positive > ops.amax(logits, axis=-1)
    return {
        "loss": ops.mean(total - positive),
        "contrastive_accuracy": ops.mean(ops.cast(picked, "float32")),
    }
