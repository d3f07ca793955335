"""iBOT's loss: the teacher's distribution at each hidden patch."""

from typing import Any

from keras import ops

from kerassl.losses.numbers import at_least


def masked_distillation(
    student_logits: Any,
    teacher_probabilities: Any,
    mask: Any,
    temperature: float = 0.1,
) -> dict[str, Any]:
    """Computes iBOT's loss: the teacher's distribution at each hidden patch.

    Cross entropy at the same place of the same view, averaged over the hidden
    patches of each image, then over images; images without any count 0.

    Args:
        student_logits: float tensor of shape `(N, M, K)`.
        teacher_probabilities: float tensor of shape `(N, M, K)` of rows that
            sum to 1, such as `centered` returns.
        mask: float tensor of shape `(N, M)`: 1 for hidden patches, 0 for those
            that don't count.
        temperature: float > 0, the student's.

    Returns:
        A dict with `"loss"`, a float32 scalar.

    Reference:
        - [Zhou et al., 2021](https://arxiv.org/abs/2111.07832)
    """
    mask = ops.cast(mask, "float32")
    logits = ops.cast(student_logits, "float32") / temperature
    terms = -ops.sum(
        ops.cast(teacher_probabilities, "float32") * ops.log_softmax(logits),
        axis=-1,
    )
    counts = at_least(ops.sum(mask, axis=1), 1.0)
    return {"loss": ops.mean(ops.sum(terms * mask, axis=1) / counts)}
