"""The loss and the metric of inpainting."""

from typing import Any

from keras import ops

from kerassl.losses.numbers import at_least


def inpainting(painted: Any, target: Any, weights: Any) -> dict[str, Any]:
    """Computes the weighted mean of squared errors.

    Args:
        painted: float tensor `(N, H, W, C)`.
        target: float tensor of the same shape.
        weights: float tensor `(N, H, W, 1)`, the weight >= 0 of each pixel.

    Returns:
        A dict with `"loss"`, a float32 scalar: the mean over the pixels and
        channels of all images.

    Example:
    ```python
    loss = kerassl.losses.inpainting(painted, images, masks)["loss"]
    ```

    Reference:
        - [Pathak et al., 2016](https://arxiv.org/abs/1604.07379), equation 1
    """
    weights = ops.cast(weights, "float32")
    total = at_least(ops.sum(weights), 1e-6)
    return {"loss": ops.sum(weights * _squared(painted, target)) / total}


def relative_error(painted: Any, target: Any, masks: Any, colors: Any) -> Any:
    """Computes the squared error in holes relative to that of one color.

    Args:
        painted: float tensor `(N, H, W, C)`.
        target: float tensor of the same shape.
        masks: float tensor `(N, H, W, 1)`: 1 in the hole, 0 elsewhere.
        colors: float tensor `(N, 1, 1, C)`, one color per image, such as the
            mean of its visible pixels.

    Returns:
        A float32 scalar: 0 for a perfect painting, 1 if it is no better than
        that color.

    Example:
    ```python
    seen = 1 - masks
    colors = ops.sum(images * seen, (1, 2), keepdims=True)
    colors /= ops.sum(seen, (1, 2), keepdims=True)
    error = kerassl.losses.relative_error(painted, images, masks, colors)
    ```
    """
    masks = ops.cast(masks, "float32")
    error = ops.sum(masks * _squared(painted, target))
    plain = ops.sum(masks * _squared(colors, target))
    return error / at_least(plain, 1e-6)


def _squared(a: Any, b: Any) -> Any:
    difference = ops.cast(a, "float32") - ops.cast(b, "float32")
    return ops.mean(ops.square(difference), axis=-1, keepdims=True)
