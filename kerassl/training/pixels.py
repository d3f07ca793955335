"""Looks at the pixels of images on the host, before a step sees them."""

from typing import Any

import keras
import numpy as np

from kerassl.data.arrays import check_range, dtype_name

# Batches that are looked at wholly; of later ones a sample.
WHOLE_BATCHES = 8
SAMPLED_VALUES = 2**20
# To read what lies on an accelerator makes the host wait.
BATCHES_FROM_DEVICES = 2
# Standardized colors reach some 3; pixels pass this in nearly every image.
STANDARDIZED = 16.0
# What normalized tiles never reach, and 16-bit images do.
FAR = 10_000.0


class PixelWatch:
    """Refuses images whose values aren't in [0, 255], batch after batch.

    Images in [0, 1] are refused at their first batch. Dark ones among others
    are not: once brighter pixels were seen, a batch without any is refused only
    if several images of it hold fractions, which dark pixels seldom are. A
    batch of one value says nothing.
    """

    def __init__(self):
        self.batches = 0
        self.has_seen_bright = False

    def look(self, images: Any, name: str, strict: bool = True) -> None:
        """Looks at a batch, or at a whole array.

        Args:
            images: array or tensor `(N, ...)` of uint8 or float.
            name: str, for the message.
            strict: bool. Whether all values outside of [0, 255] are refused,
                or only those of another scale: ready-made views may exceed the
                range a little, and normalized tiles do.

        Raises:
            ValueError: naming the range found and the one needed.
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
        return keras.ops.convert_to_numpy(images)


def _holds_fractions(sample: np.ndarray) -> bool:
    """Says whether at least two images hold values between 0 and 1."""
    axes = tuple(range(1, sample.ndim))
    return np.any((sample > 0) & (sample < 1), axis=axes).sum() > 1


def _is_on_host(images: Any) -> bool:
    if hasattr(images, "devices"):  # JAX
        return all(device.platform == "cpu" for device in images.devices())
    # PyTorch's `device`, TensorFlow's name of one; NumPy has neither or "cpu".
    return "cpu" in str(getattr(images, "device", "cpu") or "cpu").lower()
