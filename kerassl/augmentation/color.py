"""Color jitter, grayscale and solarize, as batched array functions.

Functions take `xp`, a namespace of array functions: `keras.ops`, or
TensorFlow's in a `tf.data` pipeline. Pixels are in [0, 1], channels first.
"""

import math
from typing import Any

from kerassl.augmentation.namespace import array, clip, one_hot

# ITU-R 601, as PIL and torchvision have it.
LUMA = (0.299, 0.587, 0.114)

# By their index among the uniform numbers for the order.
OPERATIONS = ("brightness", "contrast", "saturation", "hue")
HUE = 3


def jitter(
    xp: Any,
    x: Any,
    uniforms: dict[str, Any],
    applied: Any,
    strengths: dict[str, float],
    channels: int,
) -> Any:
    """Changes brightness, contrast, saturation and hue, in random order.

    All but the hue are a matrix and an offset, and are clipped before the
    next, like torchvision's: the order matters because of the clipping and of
    the contrast's mean. The hue costs more, so it is computed once: each image
    has up to three steps before it and up to three after it.

    Args:
        xp: namespace of array functions.
        x: float32 tensor `(B, C, P)` of P pixels in [0, 1].
        uniforms: dict of `"order"`, `(B, 4)`; `"brightness"`, `"contrast"`,
            `"saturation"` and `"hue"`, `(B, 1)`; all in [0, 1).
        applied: float32 tensor `(B, 1)` of 0 and 1: which images change.
        strengths: dict of the four strengths, as in `ColorJitter`.
        channels: int, C. Unless it is 3, saturation and hue change nothing,
            and contrast is about the mean of each channel.

    Returns:
        Float32 tensor `(B, C, P)` in [0, 1].
    """
    # (B, 4): the factors of the operations, 1 where nothing changes.
    spans = [_span(strengths[name]) for name in OPERATIONS]
    spans[HUE] = (0.0, 0.0)
    lows, widths = (tuple(column) for column in zip(*spans))
    drawn = xp.concatenate([uniforms[name] for name in OPERATIONS], axis=-1)
    changes = array(xp, lows, x) + array(xp, widths, x) * drawn
    factors = 1.0 + applied * changes
    if channels != 3:
        brightness, contrast = factors[:, :1, None], factors[:, 1:2, None]
        return scale(xp, x, brightness, contrast, uniforms["order"])
    # A matrix for the pixels, and what the contrast adds of the mean luma.
    one = tuple(float(i == j) for i in range(channels) for j in range(channels))
    changes = (1.0 - factors)[:, :, None]  # (B, 4, 1)
    grayed = changes * array(xp, ((0.0,), (0.0,), (1.0,), (0.0,)), x)
    matrices = factors[:, :, None] * array(xp, one, x)
    matrices = matrices + grayed * array(xp, LUMA * channels, x)
    lumas = changes * array(xp, LUMA, x)
    lumas = lumas * array(xp, ((0.0,), (1.0,), (0.0,), (0.0,)), x)
    operations = xp.concatenate([matrices, lumas], axis=-1)
    order = xp.argsort(uniforms["order"], axis=-1)
    chosen = one_hot(xp, order, 4)  # (B, steps, 4)
    with_hue = bool(strengths["hue"])
    if with_hue:
        chosen = _around_hue(xp, chosen)
    steps = chosen.shape[1]
    operations = xp.matmul(chosen, operations)
    matrices = xp.reshape(
        operations[:, :, : channels**2], (-1, steps, channels, channels)
    )
    lumas = operations[:, :, None, channels**2 :]  # (B, steps, 1, C)
    for step in range(steps):
        if with_hue and step == 3:
            widest = 2.0 * strengths["hue"]
            turns = applied * (widest * uniforms["hue"] - strengths["hue"])
            x = shift_hue(xp, x, turns)
        mean = xp.mean(x, axis=-1, keepdims=True)
        offset = xp.matmul(lumas[:, step], mean)
        x = clip(xp, xp.matmul(matrices[:, step], x) + offset, 0.0, 1.0)
    return x


def scale(xp: Any, x: Any, brightness: Any, contrast: Any, order: Any) -> Any:
    """Changes brightness and contrast without mixing channels.

    Args:
        xp: namespace of array functions.
        x: float32 tensor `(B, C, P)` in [0, 1].
        brightness: float32 tensor `(B, C, 1)` or `(B, 1, 1)` of factors.
        contrast: likewise, about the mean of each channel.
        order: float32 tensor `(B, 2)`: the brightness changes first where its
            number is the smaller one.

    Returns:
        Float32 tensor `(B, C, P)` in [0, 1].
    """
    first = xp.cast(order[:, 0] <= order[:, 1], "float32")[:, None, None]
    for is_brightness in (first, 1.0 - first):
        factor = contrast + is_brightness * (brightness - contrast)
        share = (1.0 - factor) * (1.0 - is_brightness)
        mean = xp.mean(x, axis=-1, keepdims=True)
        x = clip(xp, factor * x + share * mean, 0.0, 1.0)
    return x


def _span(strength: float) -> tuple[float, float]:
    """Returns the smallest change of a factor from 1, and the changes' span."""
    low = max(0.0, 1.0 - strength)
    return low - 1.0, 1.0 + strength - low


def _around_hue(xp: Any, chosen: Any) -> Any:
    """Returns `(B, 6, 4)`: three steps before the hue, and three after it.

    Images with fewer steps there get the hue, whose matrix is the identity.
    """
    # By the hue's position (a row): which steps take part.
    taking_part = tuple(
        tuple(float(step < at) for step in range(3))
        + tuple(float(step > at) for step in range(1, 4))
        for at in range(4)
    )
    taking_part = array(xp, taking_part, chosen)
    taking_part = xp.matmul(chosen[:, :, HUE], taking_part)[..., None]
    idle = array(xp, (0.0, 0.0, 0.0, 1.0), chosen)
    steps = xp.concatenate([chosen[:, :3], chosen[:, 1:]], axis=1)
    return idle + taking_part * (steps - idle)


def shift_hue(xp: Any, x: Any, turns: Any) -> Any:
    """Shifts the hue, and keeps value and saturation, as in HSV.

    A matrix rotates colors about the gray axis. They are then scaled and
    shifted along it, back to the largest and smallest channel that they had.
    HSV's hue follows a hexagon instead of a circle: angles differ by at most
    1.1 degrees.

    Args:
        xp: namespace of array functions.
        x: float32 tensor `(B, 3, P)` in [0, 1].
        turns: float32 tensor `(B, 1)`, in turns of the color wheel.

    Returns:
        Float32 tensor `(B, 3, P)` in [0, 1], up to rounding.
    """
    # Each entry is a cosine, of the angle and a third of the circle for each
    # column to the right.
    thirds = tuple((j - i) / 3 for i in range(3) for j in range(3))
    angles = 2.0 * math.pi * (turns + array(xp, thirds, turns))
    matrix = xp.reshape((1.0 + 2.0 * xp.cos(angles)) / 3.0, (-1, 3, 3))
    turned = xp.matmul(matrix, x)
    low = xp.amin(x, axis=1, keepdims=True)
    turned_low = xp.amin(turned, axis=1, keepdims=True)
    spread = xp.amax(x, axis=1, keepdims=True) - low
    turned_spread = xp.amax(turned, axis=1, keepdims=True) - turned_low
    # Grays stay unchanged: their spread is 0 or a rounding error.
    scale = spread / xp.maximum(turned_spread, array(xp, 1e-6, x))
    return turned * scale + (low - turned_low * scale)


def luma(x: Any) -> Any:
    """Returns the luma `(B, 1, P)` of pixels `(B, 3, P)`."""
    # Compilers fuse a sum of slices, and not one along an axis.
    red, green, blue = LUMA
    return red * x[:, 0:1] + green * x[:, 1:2] + blue * x[:, 2:3]


def grayscale(xp: Any, x: Any, uniform: Any, probability: float) -> Any:
    """Makes some images `(B, 3, P)` gray; `uniform` is `(B, 1)`."""
    return xp.where(uniform[:, :, None] < probability, luma(x), x)


def solarize(
    xp: Any, x: Any, uniform: Any, probability: float, threshold: float
) -> Any:
    """Inverts the bright pixels of some images; `uniform` is `(B, 1)`."""
    inverted = (uniform[:, :, None] < probability) & (x >= threshold)
    return xp.where(inverted, 1.0 - x, x)
