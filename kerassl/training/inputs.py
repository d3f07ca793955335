"""Looks at the first images before a run starts."""

import math
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from kerassl.data import ImageBatches, ImageData, check_images

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


def as_batches(
    data: Any, batch_size: int | None = None, shuffle: bool = True
) -> ImageBatches | None:
    """Returns batches of what `kerassl.data.load` returns.

    Args:
        data: the first argument of `fit`: `ImageData`, or the images of one.
        batch_size: int; by default 32, as Keras has it.
        shuffle: bool.

    Returns:
        `ImageBatches`; or `None` for data that Keras takes itself.
    """
    if hasattr(data, "read"):  # An `ImageFolder`.
        data = ImageData(data)
    if not isinstance(data, ImageData):
        return None
    return data.batches(batch_size or 32, shuffle=shuffle)


def batch_sizes(
    x: Any, batch_size: int | None = None, validation_split: float = 0.0
) -> list[int]:
    """Returns the sizes of the batches that `fit` will see, as far as known.

    Args:
        x: the first argument of `fit`.
        batch_size: its batch size, for arrays.
        validation_split: its share of arrays that isn't trained on.

    Returns:
        The size of the full batches and that of the last one, if it differs;
        nothing for data sets that don't say.
    """
    if isinstance(x, Mapping):
        x = next(iter(x.values()), None)
    if isinstance(x, ImageBatches):
        return x.batch_sizes
    if isinstance(x, keras.utils.PyDataset):
        # An endless one has no last batch.
        if x.num_batches is None:
            return []
        ends = {0, x.num_batches - 1}
        return [len(_first_array(x[i])) for i in sorted(ends)]
    if hasattr(x, "element_spec"):  # tf.data
        shape = getattr(_first_array(x.element_spec), "shape", None)
        return [shape[0]] if shape and shape[0] is not None else []
    if not hasattr(x, "shape"):
        return []
    count = math.floor(len(x) * (1 - validation_split))
    full = min(batch_size or 32, count)
    last = count % full if full else 0
    return [full, last] if last else [full]


def _first_array(batch: Any) -> Any:
    while isinstance(batch, (tuple, list, Mapping)):
        values = batch.values() if isinstance(batch, Mapping) else batch
        batch = next(iter(values))
    return batch


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
        if not hasattr(x, "take"):  # One of `tf.distribute`.
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
