"""The forms that data has: where its images, views and labels are."""

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from kerassl.data import ImageBatches
from kerassl.data.stored import native


def select(x: Any, views: Sequence[str] = (), drawn: Sequence[str] = ()) -> Any:
    """Returns the images in a dict, or its views as a dict.

    Args:
        x: images; a dict with all views, and optionally the entries of `drawn`;
            or a dict with images under `"image"`, as in TensorFlow Datasets.
        views: names of views.
        drawn: names that may accompany them, all or none.

    Returns:
        An array, or a dict of them; NumPy's in this machine's byte order, which
        the backends need.

    Raises:
        ValueError: if the dict holds neither, or only some of `drawn`.
    """
    if not isinstance(x, Mapping):
        return _native(x)
    if views and set(views) <= set(x):
        given = [name for name in drawn if name in x]
        if given and len(given) < len(drawn):
            raise ValueError(
                f"Give all of {list(drawn)} with the views, or none. Found: "
                f"{given}"
            )
        return {name: _native(x[name]) for name in (*views, *given)}
    if "image" not in x or isinstance(x["image"], Mapping):
        needed = f"the views {list(views)} or 'image'" if views else "'image'"
        raise ValueError(
            f"A dict of inputs must hold {needed}. Found: {sorted(x)}"
        )
    return _native(x["image"])


def _native(x: Any) -> Any:
    return native(x) if isinstance(x, np.ndarray) else x


def labels_of(batch: Any) -> Any:
    """Returns the labels of a batch, or `None`.

    Args:
        batch: images; a dict, which may have them under `"label"`; or a tuple
            that begins with one of these, and may go on with labels.
    """
    labels = None
    if isinstance(batch, (tuple, list)) and batch:
        batch, labels = (*batch, None)[:2]
    if labels is None and isinstance(batch, Mapping):
        labels = batch.get("label")
    return _native(labels)


def is_arrays(x: Any) -> bool:
    """Returns whether data is an array, or a dict of arrays."""
    return isinstance(x, Mapping) or hasattr(x, "shape")


def batch_sizes(
    x: Any, batch_size: int | None = None, validation_split: float = 0.0
) -> list[int]:
    """Returns the sizes of the batches that `fit` will read, as far as known.

    Args:
        x: the first argument of `fit`.
        batch_size: the argument of `fit`, for arrays.
        validation_split: the argument of `fit`, for arrays.

    Returns:
        A list with the size of full batches and that of the last batch, if it
        differs; an empty list if they are unknown.
    """
    if isinstance(x, Mapping):
        x = x["image"] if "image" in x else next(iter(x.values()), None)
    if isinstance(x, ImageBatches):
        return x.batch_sizes
    if isinstance(x, keras.utils.PyDataset):
        # An endless data set has no last batch.
        if x.num_batches is None:
            return []
        ends = {0, x.num_batches - 1}
        return [len(any_array(x[i])) for i in sorted(ends)]
    if hasattr(x, "element_spec"):  # tf.data
        shape: Any = getattr(any_array(x.element_spec), "shape", None)
        is_known = getattr(shape, "rank", None) and shape[0] is not None
        return [shape[0]] if is_known else []
    if is_loader(x):
        # Unknown for iterable data sets and for samplers of batches.
        if not x.batch_size or not hasattr(x.sampler, "__len__"):
            return []
        return _sizes(len(x.sampler), x.batch_size, x.drop_last)
    if not hasattr(x, "shape"):
        return []
    count = math.floor(len(x) * (1 - validation_split))
    return _sizes(count, batch_size or 32)


def _sizes(count: int, full: int, drops_last: bool = False) -> list[int]:
    full = min(full, count)
    last = count % full if full and not drops_last else 0
    return [full, last] if last else [full]


def first_part(batch: Any) -> Any:
    """Returns what a tuple begins with; anything else as it is."""
    if isinstance(batch, (tuple, list)) and batch:
        return batch[0]
    return batch


def any_array(batch: Any) -> Any:
    """Returns the first array in tuples and dicts.

    Of a dict's values, a list, such as the names of files, is taken only if
    none is an array.
    """
    while isinstance(batch, (tuple, list, Mapping)):
        if isinstance(batch, Mapping):
            batch = max(batch.values(), key=lambda x: hasattr(x, "shape"))
        else:
            batch = next(iter(batch))
    return batch


def is_loader(x: Any) -> bool:
    """Returns whether `x` is a torch `DataLoader`."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.utils.data.DataLoader)
