"""DINO's loss: cross entropy with a teacher's centered, sharpened softmax."""

from collections.abc import Sequence
from typing import Any

from keras import ops

from kerassl.losses.swapped_prediction import swapped_prediction


def centered(logits: Any, center: Any, temperature: Any) -> Any:
    """Returns a teacher's probabilities: `softmax((logits - center) / T)`.

    The center, the mean of past logits, keeps one prototype from taking all
    images; the low temperature keeps all from being equally likely.

    Args:
        logits: float tensor of shape `(..., K)`.
        center: float tensor of shape `(K,)`.
        temperature: float or scalar tensor, > 0.

    Returns:
        A float32 tensor of shape `(..., K)`, without a gradient.

    Reference:
        - [Caron et al., 2021](https://arxiv.org/abs/2104.14294)
    """
    logits = ops.cast(ops.stop_gradient(logits), "float32")
    return ops.softmax((logits - ops.cast(center, "float32")) / temperature)


def dino(
    student_logits: Sequence[Any],
    teacher_probabilities: Sequence[Any],
    temperature: float = 0.1,
) -> dict[str, Any]:
    """Computes DINO's loss for all views and the teacher's first ones.

    The student predicts the teacher's distribution of each of the first views
    from every other view: cross entropy, averaged over these pairs and over the
    batch, as in `swapped_prediction`.

    Args:
        student_logits: for each view, a float tensor of shape `(N, K)`.
        teacher_probabilities: for each of the first views, a float tensor of
            shape `(N, K)` of rows that sum to 1, such as `centered` returns.
        temperature: float > 0, the student's.

    Returns:
        A dict of float32 scalars: `"loss"`; and its two parts,
        `"teacher_entropy"`, at most `log(K)`, and `"teacher_kl"`, the
        divergence that the student can reduce. The mean entropy falls to 0 if
        all images get one prototype, the divergence if student and teacher
        always agree.

    Example:
    ```python
    teacher = [kerassl.losses.centered(x, center, 0.04) for x in logits_t]
    loss = kerassl.losses.dino(logits_s, teacher)["loss"]
    ```

    Reference:
        - [Caron et al., 2021](https://arxiv.org/abs/2104.14294)
    """
    loss = swapped_prediction(
        student_logits, teacher_probabilities, temperature
    )["loss"]
    entropies = [
        -ops.mean(ops.sum(p * ops.log(p + 1e-30), axis=-1))
        for p in teacher_probabilities
    ]
    entropy = sum(entropies) / len(entropies)
    return {
        "loss": loss,
        "teacher_entropy": entropy,
        "teacher_kl": loss - entropy,
    }
