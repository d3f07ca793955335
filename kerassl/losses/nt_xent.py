"""Normalized temperature-scaled cross-entropy, the loss of SimCLR."""

from typing import Any

from keras import ops

from kerassl.losses.numbers import has_others
from kerassl.losses.unit_vectors import unit_vectors

# Excludes a projection's similarity with itself. Far below any logit, but
# finite, so that `inf - inf` can't occur.
MASKED = -1e9


def nt_xent(
    projection_1: Any,
    projection_2: Any,
    temperature: float = 0.1,
    rows: Any = None,
    decoupled: bool = False,
    labels: Any = None,
) -> dict[str, Any]:
    """Computes the NT-Xent loss of pairs of projections.

    Each of the 2N projections has to identify its partner among the 2N - 1
    others by cosine similarity. The loss is the mean of the 2N cross-entropies,
    as in Algorithm 1 of the paper.

    Args:
        projection_1: float tensor of shape `(N, D)`, of any scale: the
            function normalizes it.
        projection_2: float tensor of shape `(N, D)`; row `i` shows the same
            image as row `i` of `projection_1`.
        temperature: float > 0. The similarities in [-1, 1] are divided by it.
        rows: int tensor `(M,)`, indices of images, or `None` for all. The mean
            is over their 2M projections only, each of which is still compared
            with all others.
        decoupled: bool. Leaves the partner out of the denominator, as in the
            decoupled contrastive loss (DCL). For N = 1, where nothing else is
            in it, the loss is 0, as without this.
        labels: int tensor `(N,)`, the class of each image, or `None`. With
            labels all projections of its class are a projection's partners: its
            cross-entropy is the mean over them, as in the supervised
            contrastive loss (SupCon). Not together with `decoupled`.

    Returns:
        A dict of float32 scalars: `"loss"`, at chance about `log(2N - 1)`, or
        decoupled `log(2N - 2)`; and
        `"contrastive_accuracy"`, the share in [0, 1] of projections that
        identify their partner, or one of them.

    Example:
    ```python
    z1 = keras.random.normal((256, 128))
    z2 = keras.random.normal((256, 128))
    loss = kerassl.losses.nt_xent(z1, z2, temperature=0.5)["loss"]
    ```

    Reference:
        - [Chen et al., 2020, SimCLR](https://arxiv.org/abs/2002.05709)
        - google-research/simclr, `tf2/objective.py`, which sums the losses of
          both directions, so its value is twice as large.
        - [Khosla et al., 2020, SupCon](https://arxiv.org/abs/2004.11362),
          equation 2
        - [Yeh et al., 2021, DCL](https://arxiv.org/abs/2110.06848)
    """
    # Float32, since half precision overflows in the logits' exponentials.
    projections = unit_vectors(ops.concatenate([projection_1, projection_2]))
    total = ops.shape(projections)[0]
    everyone = ops.arange(total)
    partners = ops.roll(projections, total // 2, 0)
    if rows is None:
        index, anchors = everyone, projections
    else:
        rows = ops.cast(rows, everyone.dtype)
        index = ops.concatenate([rows, rows + total // 2])
        anchors = ops.take(projections, index, axis=0)
        partners = ops.take(partners, index, axis=0)
    logits = ops.matmul(anchors, ops.transpose(projections)) / temperature
    itself = ops.equal(index[:, None], everyone[None, :])
    logits = logits + MASKED * ops.cast(itself, "float32")
    partner = (index + total // 2) % total
    compared = logits
    if decoupled:
        is_partner = ops.equal(partner[:, None], everyone[None, :])
        mask = MASKED * has_others(projection_1)
        compared = logits + mask * ops.cast(is_partner, "float32")
    picked = ops.cast(ops.argmax(logits, axis=-1), partner.dtype)
    if labels is None:
        wanted = ops.sum(anchors * partners, axis=-1) / temperature
        found = ops.equal(picked, partner)
    else:
        classes = ops.concatenate([ops.cast(labels, "int32")] * 2)
        own = ops.take(classes, index, axis=0)
        alike = ops.cast(ops.equal(own[:, None], classes[None, :]), "float32")
        # The partner from the other view is always among them.
        alike = alike - ops.cast(itself, "float32")
        wanted = ops.sum(alike * logits, axis=-1) / ops.sum(alike, axis=-1)
        found = ops.equal(ops.take(classes, picked, axis=0), own)
    loss = ops.mean(ops.logsumexp(compared, axis=-1) - wanted)
    accuracy = ops.mean(ops.cast(found, "float32"))
    return {"loss": loss, "contrastive_accuracy": accuracy}
