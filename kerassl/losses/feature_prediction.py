"""I-JEPA's loss: a teacher's features of hidden patches."""

from typing import Any

from keras import ops


def feature_prediction(predictions: Any, targets: Any) -> dict[str, Any]:
    """Computes I-JEPA's loss: smooth L1 to normalized features.

    Each target is normalized by the mean and deviation of its own D numbers, as
    by a layer normalization without weights. The error is its square / 2 below
    1, and its size - 1 / 2 above, averaged over all numbers.

    Args:
        predictions: float tensor of shape `(..., D)`.
        targets: float tensor of that shape; no gradient flows to it.

    Returns:
        A dict with `"loss"`, a float32 scalar: about 0.4 for predictions of 0.

    Example:
    ```python
    loss = kerassl.losses.feature_prediction(predictions, features)["loss"]
    ```

    Reference:
        - [Assran et al., 2023](https://arxiv.org/abs/2301.08243)
    """
    error = ops.abs(
        ops.cast(predictions, "float32") - normalize_features(targets)
    )
    # Half a square up to 1, and a line from there on.
    curved = 1.0 - ops.relu(1.0 - error)
    return {"loss": ops.mean(curved * (error - 0.5 * curved))}


def normalize_features(features: Any) -> Any:
    """Normalizes each vector by its own mean and deviation.

    Args:
        features: float tensor of shape `(..., D)`.

    Returns:
        A float32 tensor of that shape, without a gradient.
    """
    x = ops.cast(ops.stop_gradient(features), "float32")
    x = x - ops.mean(x, axis=-1, keepdims=True)
    variance = ops.mean(ops.square(x), axis=-1, keepdims=True)
    return x * ops.rsqrt(variance + 1e-5)
