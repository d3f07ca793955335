"""Cross-entropy with targets that follow from how the input was made."""

from typing import Any

from keras import ops


def classification(logits: Any, targets: Any) -> dict[str, Any]:
    """Computes the mean cross-entropy and the accuracy.

    Args:
        logits: tensor `(..., K)`.
        targets: one-hot tensor that broadcasts to `(..., K)`.

    Returns:
        A dict of float32 scalars: `"loss"`, ln(K) by chance; and `"accuracy"`,
        the share in [0, 1] of rows whose largest logit is the target's.
    """
    logits = ops.cast(logits, "float32")
    targets = ops.cast(targets, "float32")
    log_probabilities = ops.log_softmax(logits, axis=-1)
    loss = -ops.mean(ops.sum(targets * log_probabilities, axis=-1))
    hit = ops.argmax(logits, axis=-1) == ops.argmax(targets, axis=-1)
    return {"loss": loss, "accuracy": ops.mean(ops.cast(hit, "float32"))}
