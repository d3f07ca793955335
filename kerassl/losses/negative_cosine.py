"""Negative cosine similarity of pairs, the loss of SimSiam and BYOL."""

from typing import Any

from keras import ops

from kerassl.losses.unit_vectors import unit_vectors


def negative_cosine(predictions: Any, targets: Any) -> dict[str, Any]:
    """Computes the mean negative cosine similarity of pairs.

    BYOL's squared distance of unit vectors is 2 plus twice this loss.

    Args:
        predictions: float tensor of shape `(N, D)`, of any scale.
        targets: float tensor of shape `(N, D)`. Gradients aren't stopped.

    Returns:
        A dict with `"loss"`, a float32 scalar in [-1, 1]: -1 if all pairs
        point the same way, 0 if they are orthogonal.

    Example:
    ```python
    loss = kerassl.losses.negative_cosine(p1, ops.stop_gradient(z2))["loss"]
    ```

    Reference:
        - [Chen and He, 2020, SimSiam](https://arxiv.org/abs/2011.10566)
    """
    products = unit_vectors(predictions) * unit_vectors(targets)
    return {"loss": -ops.mean(ops.sum(products, axis=-1))}


def output_std(outputs: Any) -> Any:
    """Computes the standard deviation of normalized outputs.

    It shows a collapse.

    Args:
        outputs: float tensor of shape `(N, D)`, of any scale.

    Returns:
        A float32 scalar, the mean over the D dimensions: 0 if all outputs are
        equal, about `1 / sqrt(D)` if they are spread over the sphere.

    Reference:
        - [Chen and He, 2020, SimSiam](https://arxiv.org/abs/2011.10566), 4.1
    """
    outputs = ops.stop_gradient(unit_vectors(outputs))
    return ops.mean(ops.std(outputs, axis=0))
