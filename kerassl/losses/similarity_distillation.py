"""The loss of SEED: similarities to a queue, as the teacher sees them."""

from typing import Any

from keras import ops

from kerassl.losses.nt_xent import MASKED
from kerassl.losses.unit_vectors import unit_vectors


def similarity_distillation(
    predictions: Any, targets: Any, queue: Any, temperature: float = 0.07
) -> dict[str, Any]:
    """Computes how far similarities to a queue are from the teacher's.

    The softmax of an image's cosine similarities to the teacher's features in
    the queue is a distribution. The loss is the Kullback-Leibler divergence
    of the student's from the teacher's.

    Args:
        predictions: float tensor of shape `(N, D)`, the student's, of any
            scale.
        targets: float tensor of shape `(N, D)`, the teacher's features of the
            same views, of any scale. No gradient flows into them.
        queue: float tensor of shape `(K, D)`, the teacher's features of these
            and earlier images; rows of zeros are empty.
        temperature: float > 0.

    Returns:
        A dict of float32 scalars: `"loss"` >= 0, and `"teacher_similarity"` in
        [-1, 1], the mean cosine of predictions and targets.

    Example:
    ```python
    loss = kerassl.losses.similarity_distillation(p, z, queue)["loss"]
    ```

    Reference:
        - [Fang et al., 2021, SEED](https://arxiv.org/abs/2101.04731)
    """
    student = unit_vectors(predictions)
    teacher = ops.stop_gradient(unit_vectors(targets))
    queue = ops.stop_gradient(unit_vectors(queue))
    is_empty = ops.cast(ops.all(queue == 0.0, axis=-1), "float32")
    of_student, of_teacher = (
        ops.log_softmax(
            ops.matmul(rows, ops.transpose(queue)) / temperature
            + MASKED * is_empty
        )
        for rows in (student, teacher)
    )
    divergence = ops.sum(
        ops.exp(of_teacher) * (of_teacher - of_student), axis=-1
    )
    return {
        "loss": ops.mean(divergence),
        "teacher_similarity": ops.mean(ops.sum(student * teacher, axis=-1)),
    }
