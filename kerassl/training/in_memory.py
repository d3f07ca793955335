"""Reads whole data sets into memory, for repeated evaluation."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from kerassl.data import ImageBatches, ImageData, check_images
from kerassl.training.forms import first_part, is_loader, labels_of, select


def read_images(data: Any) -> Any:
    """Returns all images of a data set as one array.

    Args:
        data: an array of images; the result of `kerassl.data.load`; a dict with
            the images under `"image"`; or a finite `tf.data`, `PyDataset` or
            torch `DataLoader` of batches of these, with or without labels.

    Returns:
        An array `(N, H, W, C)`; or `Photos`, decoded on access.

    Raises:
        ValueError: if the data set is endless or empty, or the images have the
            wrong shape, type or range.
    """
    images, _ = _read(data, "images")
    check_images(images, "images")
    return images


def read_labeled(data: Any, name: str) -> Any:
    """Returns all images of a data set and its labels, if it has any.

    Args:
        data: as in `read_images`; labels are the second part of a pair, or
            under `"label"` in a dict.
        name: str, for error messages.

    Returns:
        `ImageData` unchanged; otherwise a pair of images and labels, where
        labels may be `None`.

    Raises:
        ValueError: if the data set is endless or empty.
    """
    return data if isinstance(data, ImageData) else _read(data, name)


def _read(data: Any, name: str) -> tuple[Any, Any]:
    if hasattr(data, "read"):  # `Photos`.
        return data, None
    if isinstance(data, (ImageData, ImageBatches)):
        return data.images, data.labels
    batches = _batches(data, name)
    if batches is None:
        return _pair(data)
    pairs = [_pair(batch) for batch in batches]
    if not pairs:
        raise ValueError(f"`{name}` is empty. Give a data set with images.")
    images, labels = zip(*pairs)
    if any(part is None for part in labels):
        return _joined(images), None
    return _joined(images), _joined(labels)


def _pair(batch: Any) -> tuple[Any, Any]:
    """Returns the images and the labels of a batch; no labels are `None`."""
    return select(first_part(batch)), labels_of(batch)


def _batches(data: Any, name: str) -> Iterator[Any] | None:
    """Returns the batches of a data set, or `None` for arrays."""
    endless = ValueError(f"`{name}` is endless. Give a finite data set.")
    if isinstance(data, keras.utils.PyDataset):
        if data.num_batches is None:
            raise endless
        return (data[i] for i in range(data.num_batches))
    if hasattr(data, "element_spec"):  # tf.data
        if data.cardinality() == -1:  # tf.data.INFINITE_CARDINALITY
            raise endless
        return iter(data)
    return iter(data) if is_loader(data) else None


def _joined(parts: tuple) -> np.ndarray:
    return np.concatenate([keras.ops.convert_to_numpy(part) for part in parts])
