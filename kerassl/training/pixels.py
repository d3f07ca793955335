"""Checks pixel values on the host, before a step uses them."""

from typing import Any

import keras
import numpy as np

from kerassl.data.arrays import check_range, dtype_name

# The number of batches that are checked completely; later ones are sampled.
WHOLE_BATCHES = 8
SAMPLED_VALUES = 2**20
# Reading from an accelerator makes the host wait, so only a few are checked.
BATCHES_FROM_DEVICES = 2
# Standardized colors reach about 3; pixels exceed this in nearly every image.
STANDARDIZED = 16.0
# Normalized tiles never reach this value, 16-bit images do.
FAR = 10_000.0


class PixelWatch:
    """Refuses batches of images whose values aren't in [0, 255].

    Images in [0, 1] are refused at the first batch, but dark images among
    others are allowed: once brighter pixels have been seen, a batch within
    [0, 1] is refused only if several of its images contain fractions, which is
    rare in dark images. A batch with a single value is always accepted.
    """

    def __init__(self):
        self.batches = 0
        self.has_seen_bright = False

    def look(self, images: Any, name: str, strict: bool = True) -> None:
        """Checks a batch, or a whole array.

        Args:
            images: array or tensor `(N, ...)` of uint8 or float.
            name: str, for the message.
            strict: bool. Whether to refuse all values outside of [0, 255], or
                only those of another scale: ready-made views may slightly
                exceed the range, and normalized tiles do.

        Raises:
            ValueError: if values are out of range.
        """
        if dtype_name(images) == "uint8":
            return
        sample = self._sample(images)
        self.batches += 1
        if sample is None:
            return
        low, high = float(sample.min()), float(sample.max())
        is_dark = self.has_seen_bright and 0 <= low and high <= 1
        if is_dark and not _holds_fractions(sample):
            return
        is_close = STANDARDIZED < high <= FAR and low >= -FAR
        if strict or not is_close:
            check_range(low, high, dtype_name(sample), name)
        self.has_seen_bright |= high > 1

    def _sample(self, images: Any) -> np.ndarray | None:
        if self.batches >= WHOLE_BATCHES:
            step = -(-int(np.prod(images.shape)) // SAMPLED_VALUES)
            images = images[self.batches % step :: step]
        if not len(images):
            return None
        if not _is_on_host(images) and self.batches >= BATCHES_FROM_DEVICES:
            return None
        if isinstance(images, np.ndarray):
            return images  # Keras would copy all of them.
        return keras.ops.convert_to_numpy(images)


def _holds_fractions(sample: np.ndarray) -> bool:
    """Returns whether at least two images have values between 0 and 1."""
    axes = tuple(range(1, sample.ndim))
    return np.any((sample > 0) & (sample < 1), axis=axes).sum() > 1


def _is_on_host(images: Any) -> bool:
    if hasattr(images, "devices"):  # JAX
        return all(device.platform == "cpu" for device in images.devices())
    # An object on PyTorch, a name on TensorFlow; in NumPy missing or "cpu".
    return "cpu" in str(getattr(images, "device", "cpu") or "cpu").lower()
