"""Looks at the first images before a run starts."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from kerassl.data import check_images

# Enough to see a wrong range, few enough to cost nothing.
LOOKED_AT = 256


def check_first_batch(x: Any, channels: int) -> None:
    """Refuses images of another shape, type or range than [0, 255] pixels.

    Arrays are sampled; of data sets the first batch is read, unless their
    type says that the pixels are uint8. Generators and ready-made views are
    taken as they are, since reading them would use them up.

    Args:
        x: the first argument of `fit`.
        channels: int. The number of channels needed.

    Raises:
        ValueError: naming what was found and what is needed.
    """
    images = _images(_first_batch(x))
    if images is None:
        return
    images = keras.ops.convert_to_numpy(images)
    check_images(images)
    if images.ndim == 4 and images.shape[-1] != channels:
        raise ValueError(
            f"The encoder takes images of {channels} channels. Found images "
            f"of shape {images.shape[1:]}."
        )


def _first_batch(x: Any) -> Any:
    if x is None or isinstance(x, Mapping):
        return x
    if hasattr(x, "shape"):
        step = max(1, len(x) // LOOKED_AT)
        return x[: step * LOOKED_AT : step]
    if hasattr(x, "element_spec"):  # tf.data
        spec = _images(x.element_spec)
        if getattr(spec, "dtype", None) == "uint8":
            return None
        return next(iter(x.take(1)), None)
    if isinstance(x, keras.utils.PyDataset):
        return x[0]
    if hasattr(x, "__len__") and hasattr(x, "__iter__"):
        return next(iter(x), None)  # a torch DataLoader
    return None


def _images(batch: Any) -> Any:
    if isinstance(batch, (tuple, list)):
        batch = batch[0] if batch else None
    if isinstance(batch, Mapping):
        return batch.get("image")
    if isinstance(batch, np.ndarray) or hasattr(batch, "shape"):
        return batch
    return None
