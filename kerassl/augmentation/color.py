"""Color jitter, grayscale and solarize, as batched array functions.

Functions take `xp`, a namespace of array functions: `keras.ops`, or
TensorFlow's in a `tf.data` pipeline. Pixels are in [0, 1], channels first.
"""

import math
from typing import Any

import numpy as np

from kerassl.augmentation.namespace import constant, one_hot

# ITU-R 601, as PIL and torchvision have it.
LUMA = (0.299, 0.587, 0.114)

# The index of an operation among the uniform numbers for the order.
CONTRAST, HUE = 1, 3

# A rotation about the gray axis of RGB: `GRAY + cos * COSINE + sin * SINE`.
_GRAY = np.full((3, 3), 1 / 3)
_COSINE = np.eye(3) - _GRAY
_SINE = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)


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
        channels: int, C. For 1, saturation and hue change nothing.

    Returns:
        Float32 tensor `(B, C, P)` in [0, 1].
    """

    def factor(name: str) -> Any:
        strength = strengths[name]
        low = max(0.0, 1.0 - strength)
        value = low + (1.0 + strength - low) * uniforms[name]
        return 1.0 + applied * (value - 1.0)  # (B, 1)

    brightness, contrast = factor("brightness"), factor("contrast")
    # Constants are made on the device: none is copied there in each step.
    black, white = constant(xp, 0.0), constant(xp, 1.0)
    identity = one_hot(xp, xp.arange(channels), channels)
    identity = xp.reshape(identity, (1, -1)) + 0.0 * brightness
    saturation = identity
    if channels == 3:
        keep = factor("saturation")
        luma_rows = xp.concatenate([w + 0.0 * keep for w in LUMA * 3], axis=-1)
        saturation = keep * identity + (1.0 - keep) * luma_rows
    operations = xp.stack(
        [brightness * identity, contrast * identity, saturation, identity],
        axis=1,
    )  # (B, 4, C * C)
    steps = xp.cast(xp.argsort(uniforms["order"], axis=-1), "int32")
    with_hue = bool(strengths["hue"]) and channels == 3
    if with_hue:
        steps = _around_hue(xp, steps)
    chosen = one_hot(xp, steps, 4)  # (B, steps, 4)
    matrices = xp.reshape(
        xp.matmul(chosen, operations), (-1, steps.shape[1], channels, channels)
    )
    # The share of the mean luma in a contrast step; 0 in the others.
    means = chosen[:, :, CONTRAST] * (1.0 - contrast)
    for step in range(steps.shape[1]):
        if with_hue and step == 3:
            turns = applied * strengths["hue"] * (2.0 * uniforms["hue"] - 1.0)
            x = shift_hue(xp, x, turns)
        mean = luma(xp.mean(x, axis=-1, keepdims=True), channels)
        x = xp.matmul(matrices[:, step], x)
        x = xp.clip(x + means[:, step, None, None] * mean, black, white)
    return x


def _around_hue(xp: Any, steps: Any) -> Any:
    """Returns `(B, 6)`: three steps before the hue, and three after it.

    Images with fewer steps there get the hue's index, whose matrix is the
    identity.
    """
    index = xp.cast(xp.arange(4), "int32")
    hue_at = xp.sum(
        xp.where(steps == HUE, index, xp.zeros_like(steps)),
        axis=-1,
        keepdims=True,
    )
    idle = xp.zeros_like(steps) + HUE
    before = xp.where(index < hue_at, steps, idle)
    after = xp.where(index > hue_at, steps, idle)
    return xp.concatenate([before[:, :3], after[:, 1:]], axis=-1)


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
    angle = 2.0 * math.pi * turns[:, 0]
    cosine, sine = xp.cos(angle), xp.sin(angle)
    matrix = xp.stack(
        [
            float(g) + float(c) * cosine + float(s) * sine
            for g, c, s in zip(_GRAY.flat, _COSINE.flat, _SINE.flat)
        ],
        axis=-1,
    )
    turned = xp.matmul(xp.reshape(matrix, (-1, 3, 3)), x)
    low = xp.amin(x, axis=1, keepdims=True)
    turned_low = xp.amin(turned, axis=1, keepdims=True)
    spread = xp.amax(x, axis=1, keepdims=True) - low
    turned_spread = xp.amax(turned, axis=1, keepdims=True) - turned_low
    # Grays stay unchanged: their spread is 0 or a rounding error.
    scale = spread / xp.maximum(turned_spread, constant(xp, 1e-6))
    return turned * scale + (low - turned_low * scale)


def luma(x: Any, channels: int) -> Any:
    """Returns the luma `(B, 1, P)` of pixels `(B, C, P)`."""
    if channels == 1:
        return x
    return sum(LUMA[i] * x[:, i : i + 1] for i in range(3))


def grayscale(xp: Any, x: Any, uniform: Any, probability: float) -> Any:
    """Makes some images `(B, 3, P)` gray; `uniform` is `(B, 1)`."""
    return xp.where(uniform[:, :, None] < probability, luma(x, 3), x)


def solarize(
    xp: Any, x: Any, uniform: Any, probability: float, threshold: float
) -> Any:
    """Inverts the bright pixels of some images; `uniform` is `(B, 1)`."""
    inverted = (uniform[:, :, None] < probability) & (x >= threshold)
    return xp.where(inverted, 1.0 - x, x)
