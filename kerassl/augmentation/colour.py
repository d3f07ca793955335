"""Colour jitter, grayscale and solarize, as a 3x3 matrix per operation.

Functions take `xp`, a namespace of array functions: `keras.ops`, or
TensorFlow's in a `tf.data` pipeline. Pixels are in [0, 1], channels first.
"""

import math
from typing import Any

import numpy as np

from kerassl.augmentation.namespace import constant, one_hot
from kerassl.augmentation.view import View

# ITU-R 601, as PIL and torchvision have it.
LUMA = (0.299, 0.587, 0.114)

# A hue shift turns the chroma plane (I, Q) of YIQ, and leaves the luma Y:
# `FIXED + cos(angle) * COSINE + sin(angle) * SINE`, in RGB.
_TO_YIQ = np.array(
    [
        LUMA,
        [0.59590059, -0.27455667, -0.32134392],
        [0.21153661, -0.52273617, 0.31119955],
    ]
)
_FROM_YIQ = np.linalg.inv(_TO_YIQ)
_FIXED = _FROM_YIQ @ np.diag([1.0, 0.0, 0.0]) @ _TO_YIQ
_COSINE = _FROM_YIQ @ np.diag([0.0, 1.0, 1.0]) @ _TO_YIQ
_SINE = _FROM_YIQ @ np.array([[0, 0, 0], [0, 0, 1], [0, -1, 0]]) @ _TO_YIQ


def jitter(
    xp: Any, x: Any, uniforms: dict[str, Any], view: View, channels: int
) -> Any:
    """Changes brightness, contrast, saturation and hue, in random order.

    Each operation is a matrix and an offset, and is clipped before the next,
    as torchvision's are: the order matters through the clipping, and through
    the contrast's mean.

    Args:
        xp: namespace of array functions.
        x: float32 tensor `(B, C, P)` of P pixels in [0, 1].
        uniforms: `"order"`, `(B, 4)`; `"jitter"`, `"brightness"`, `"contrast"`,
            `"saturation"` and `"hue"`, `(B, 1)`; all in [0, 1).
        view: the strengths.
        channels: int, C. For 1, saturation and hue change nothing.

    Returns:
        Float32 tensor `(B, C, P)` in [0, 1].
    """
    applied = xp.cast(uniforms["jitter"] < view.jitter, "float32")

    def factor(name: str) -> Any:
        strength = getattr(view, name)
        low = max(0.0, 1.0 - strength)
        value = low + (1.0 + strength - low) * uniforms[name]
        return 1.0 + applied * (value - 1.0)  # (B, 1)

    brightness, contrast = factor("brightness"), factor("contrast")
    # Constants are made on the device: none is copied there in each step.
    black, white = constant(xp, 0.0), constant(xp, 1.0)
    identity = one_hot(xp, xp.arange(channels), channels)
    identity = xp.reshape(identity, (1, -1))
    if channels == 3:
        keep = factor("saturation")
        luma_rows = xp.concatenate([w + 0.0 * keep for w in LUMA * 3], axis=-1)
        turns = applied * view.hue * (2.0 * uniforms["hue"] - 1.0)
        saturation = keep * identity + (1.0 - keep) * luma_rows
        hue = _hue_matrix(xp, turns)
    else:
        saturation = hue = identity + 0.0 * brightness
    operations = xp.stack(
        [brightness * identity, contrast * identity, saturation, hue], axis=1
    )  # (B, 4, C * C)
    # Row p tells which operation comes in place p.
    order = one_hot(xp, xp.argsort(uniforms["order"], axis=-1), 4)
    matrices = xp.reshape(
        xp.matmul(order, operations), (-1, 4, channels, channels)
    )
    # What the contrast in its place takes of the mean luma; 0 elsewhere.
    means = order[:, :, 1] * (1.0 - contrast)
    for place in range(4):
        mean = xp.mean(luma(x, channels), axis=-1, keepdims=True)
        x = xp.matmul(matrices[:, place], x)
        x = xp.clip(x + means[:, place, None, None] * mean, black, white)
    return x


def _hue_matrix(xp: Any, turns: Any) -> Any:
    """Returns `(B, 9)`, the rotations by `turns`, `(B, 1)`."""
    angle = 2.0 * math.pi * turns[:, 0]
    cosine, sine = xp.cos(angle), xp.sin(angle)
    return xp.stack(
        [
            float(f) + float(c) * cosine + float(s) * sine
            for f, c, s in zip(_FIXED.flat, _COSINE.flat, _SINE.flat)
        ],
        axis=-1,
    )


def luma(x: Any, channels: int) -> Any:
    """Returns the luma `(B, 1, P)` of pixels `(B, C, P)`."""
    if channels == 1:
        return x
    return sum(LUMA[i] * x[:, i : i + 1] for i in range(3))


def grayscale(xp: Any, x: Any, uniform: Any, probability: float) -> Any:
    """Takes the colour of some images `(B, 3, P)`; `uniform` is `(B, 1)`."""
    return xp.where(uniform[:, :, None] < probability, luma(x, 3), x)


def solarize(
    xp: Any, x: Any, uniform: Any, probability: float, threshold: float
) -> Any:
    """Inverts the bright pixels of some images; `uniform` is `(B, 1)`."""
    inverted = (uniform[:, :, None] < probability) & (x >= threshold)
    return xp.where(inverted, 1.0 - x, x)
