"""Checks, resizing and loading of image arrays."""

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerassl.data.errors import SplitError
from kerassl.data.files import split_name, split_names
from kerassl.data.hdf5 import SUFFIXES as HDF5_SUFFIXES
from kerassl.data.hdf5 import HDF5File
from kerassl.data.stored import ArrayFile, channels_first
from kerassl.data.zarr_arrays import SUFFIX as ZARR_SUFFIX
from kerassl.data.zarr_arrays import ZarrStore
from kerassl.value_range import MAX_CHANNELS, Stated, range_of

#: Suffixes of what holds arrays.
SUFFIXES = (".npz", ".npy", *HDF5_SUFFIXES, ZARR_SUFFIX)
_CHECKED_IMAGES = 1000
MAX_BYTES = 32 * 2**30


def check_images(images: Any, name: str = "images") -> None:
    """Checks that an array holds images that kerassl can train on.

    The shape must be `(N, height, width, channels)` with 1 to 16 channels, the
    dtype uint8 or float, and the values finite and in `[0, 255]`. The values
    of float images are checked in at most 1,000 images, evenly spaced.

    Args:
        images: a NumPy array, a tensor of any backend, or anything else with
            `shape`, `dtype` and slicing.
        name: str, what error messages call the images.

    Raises:
        ValueError: if the shape, the dtype or a value is wrong. The message
            gives the one received and the one needed.

    Example:
    ```python
    kerassl.data.check_images(np.zeros((8, 32, 32, 3), "uint8"))
    ```
    """
    if not hasattr(images, "shape") or not hasattr(images, "dtype"):
        raise ValueError(
            f"`{name}` must be an array of shape (N, height, width, "
            f"channels). Received: {type(images).__name__}"
        )
    shape = tuple(images.shape)
    dtype = dtype_name(images)
    check_header(shape, dtype, name)
    if dtype == "uint8":
        return
    # A slice, since not every kind of tensor takes an array of indices.
    sample = images[:: -(-shape[0] // _CHECKED_IMAGES)]
    sample = keras.ops.convert_to_numpy(sample).astype("float32", copy=False)
    check_range(sample.min(), sample.max(), dtype, name)


def dtype_name(images: Any) -> str:
    """Returns the dtype of an array or tensor of any library, as a string."""
    # NumPy's, JAX's and TensorFlow's have a name; PyTorch's is "torch.uint8".
    return getattr(images.dtype, "name", str(images.dtype).split(".")[-1])


def check_range(low: float, high: float, dtype: str, name: str) -> None:
    """Checks that the values of float images are in [0, 255].

    Args:
        low: float, the smallest value; NaN if any value is NaN.
        high: float, the largest value.
        dtype: str, the dtype, for the message.
        name: str, what the message calls the images.

    Raises:
        ValueError: if the values are not finite, scaled to [0, 1] or [-1, 1],
            or otherwise outside [0, 255].
    """
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError(
            f"`{name}` must be finite with values in [0, 255], but it holds "
            "NaN or infinite values."
        )
    found = f"Received: dtype={dtype}, values in [{low:.4g}, {high:.4g}]"
    if low < high <= 1:
        raise ValueError(
            f"`{name}` looks scaled to [{'0' if low >= 0 else '-1'}, 1], but "
            "values in [0, 255] are needed: the model normalizes them itself. "
            "Undo the scaling first, or load the images with "
            f"`value_range` (--range). {found}"
        )
    if low < 0 or high > 255:
        raise ValueError(f"`{name}` must have values in [0, 255]. {found}")


def check_header(shape: tuple[int | None, ...], dtype: str, name: str) -> None:
    """Checks that images can have this shape and dtype.

    Args:
        shape: tuple, of all images; unknown sizes are `None`.
        dtype: str, such as `"uint8"`.
        name: str, what the message calls the images.

    Raises:
        ValueError: if they can't.
    """
    check_shape(shape, name)
    check_dtype(dtype, name)


def check_numbers(
    shape: tuple[int, ...], dtype: str, name: str, value_range: Stated = None
) -> None:
    """Checks that an array can become images in [0, 255].

    Args:
        shape: as in `check_header`.
        dtype: as in `check_header`; with a range, any number.
        name: as in `check_header`.
        value_range: as in `kerassl.value_range.parse_range`.

    Raises:
        ValueError: if it can't.
    """
    check_shape(shape, name)
    if not any(kind in dtype for kind in ("int", "float")):
        check_dtype(dtype, name)
    if value_range is None and "float" not in dtype:
        try:
            range_of(dtype)
        except ValueError as error:
            raise ValueError(f"`{name}` has {error}") from error


def check_dtype(dtype: str, name: str) -> None:
    """Checks that images can have this dtype; see `check_header`."""
    if dtype != "uint8" and "float" not in dtype:
        raise ValueError(
            f"`{name}` must be uint8 or float with values in [0, 255]. "
            f"Received: dtype={dtype}"
        )


def check_shape(shape: tuple[int | None, ...], name: str) -> None:
    """Raises a ValueError for a wrong shape, with advice if possible."""
    needed = (
        f"`{name}` must have the shape (N, height, width, channels), channels "
        f"last, with 1 to {MAX_CHANNELS} channels. Received: shape={shape}"
    )
    if len(shape) == 3:
        raise ValueError(
            f"{needed}. Add an axis: `images[..., None]` for gray images, "
            "`images[None]` for a single image."
        )
    if len(shape) != 4:
        raise ValueError(needed)
    if 0 in shape:
        raise ValueError(f"{needed}, which is empty")
    channels = range(1, MAX_CHANNELS + 1)
    if shape[-1] not in channels or channels_first(shape):
        if shape[1] in channels:
            needed += (
                ". These look channels first: use `np.moveaxis(images, 1, -1)`"
            )
        raise ValueError(needed)


def check_labels(labels: Any, count: int, name: str = "labels") -> np.ndarray:
    """Checks integer labels.

    Args:
        labels: integers of shape `(N,)` or `(N, 1)`.
        count: int, the number of images.
        name: str, what error messages call the labels.

    Returns:
        An int64 array of shape `(count,)`.

    Raises:
        ValueError: if the shape, the dtype or the number of labels is wrong.

    Example:
    ```python
    labels = kerassl.data.check_labels([[3], [1]], count=2)  # [3, 1]
    ```
    """
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]  # As in `keras.datasets.cifar10`.
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"`{name}` must be integers of shape (N,). Received: "
            f"shape={labels.shape}, dtype={labels.dtype}"
        )
    if len(labels) != count:
        raise ValueError(
            f"`{name}` must have one entry for each image. Received: "
            f"{len(labels):,} labels for {count:,} images"
        )
    return labels.astype("int64")


def parse_size(image_size: int | tuple[int, int]) -> tuple[int, int]:
    """Returns `(height, width)`, from an integer or a pair.

    Raises:
        ValueError: if it is neither, or not positive.
    """
    pair = np.asarray(image_size)
    if pair.ndim == 0:
        pair = np.repeat(pair, 2)
    if pair.shape != (2,) or pair.dtype.kind not in "iu" or pair.min() < 1:
        raise ValueError(
            "`image_size` must be a positive integer or a pair (height, "
            f"width) of them. Received: {image_size!r}"
        )
    height, width = pair.tolist()
    return height, width


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes the short side of an `(H, W, C)` image, then crops the center.

    Args:
        image: array of numbers of shape `(H, W, C)`.
        size: tuple `(height, width)`.

    Returns:
        An array of shape `(height, width, C)` and the image's dtype; integers
        are rounded.
    """
    from PIL import Image, ImageOps

    if image.shape[:2] == size:
        return image
    # One channel at a time: Pillow has no color mode for floats.
    dtype = np.uint8 if image.dtype == np.uint8 else np.float32
    planes = [
        ImageOps.fit(
            Image.fromarray(np.ascontiguousarray(image[..., c], dtype)),
            (size[1], size[0]),
            Image.Resampling.BILINEAR,
        )
        for c in range(image.shape[2])
    ]
    resized = np.stack([np.asarray(plane) for plane in planes], -1)
    if image.dtype.kind != "f":
        resized = np.rint(resized)
    return resized.astype(image.dtype, copy=False)


def load_file(
    path: str | Path,
    split: str,
    image_size: int | tuple[int, int] | None,
    limit: int | None,
    value_range: Stated = None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Reads images and labels from an `.npz`, `.npy`, HDF5 or Zarr file.

    Args:
        path: path of the file, or of the folder of a Zarr store.
        split: str. Where arrays have names it selects the arrays, named as in
            `keras.datasets` (`x_train`, `y_train`) or in MedMNIST
            (`train_images`, `train_labels`). Arrays without a split in their
            name (`images`, `labels`; `x`, `y`) are the split `"train"`.
        image_size: int, `(height, width)`, or `None` to keep their size.
        limit: int, how many images to read, or `None` for all.
        value_range: as in `kerassl.data.load`; here only checked to be there
            for numbers that need one.

    Returns:
        A pair: images `(N, H, W, C)` of any numbers, which `in_levels` takes;
        and labels `(N,)` or `None`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged or lacks this split, or the images
            are invalid or need too much memory. Whatever the header shows is
            checked before any pixels are read.
    """
    path = Path(os.path.expanduser(path))
    is_store = path.suffix.lower() == ZARR_SUFFIX and path.is_dir()
    if not (path.is_file() or is_store):
        raise FileNotFoundError(f"There is no file {str(path)!r}.")
    size = None if image_size is None else parse_size(image_size)
    name = path.name
    with contextlib.ExitStack() as stack:
        with _damage_named(path):
            arrays = stack.enter_context(open_arrays(path))
        image_name, label_name = _find_arrays(arrays, split)
        with _damage_named(path):
            stored = arrays[image_name]
            stored_labels = None if label_name is None else arrays[label_name]
        shape = stored.shape
        if len(shape) == 3 and shape[-1] > 4:
            shape = (*shape, 1)
        check_numbers(
            shape, stored.dtype.name, f"images of {name}", value_range
        )
        if stored_labels is not None and stored_labels.shape[:1] != shape[:1]:
            found = (*stored_labels.shape, 0)[0]
            raise ValueError(
                f"`labels of {name}` must have one entry for each image. "
                f"Received: {found:,} labels for {shape[0]:,} images"
            )
        count = shape[0] if limit is None else min(limit, shape[0])
        if not stored.is_mapped or count < shape[0]:
            check_memory(count, shape[1:], stored.dtype, str(path))
        resized = shape[1:] if size is None else (*size, shape[-1])
        if resized != shape[1:]:
            check_memory(count, resized, stored.dtype, str(path))
        with _damage_named(path):
            images = stored.read(limit).reshape(count, *shape[1:])
            labels = None
            if stored_labels is not None:
                labels = stored_labels.read(limit)
    if labels is not None:
        labels = check_labels(labels, count, f"labels of {name}")
    if size is not None and resized != images.shape[1:]:
        found, images = images, np.empty((count, *resized), images.dtype)
        for index, image in enumerate(found):
            images[index] = resize_image(image, size)
    return images, labels


def check_memory(
    count: int, shape: tuple[int, ...], dtype: np.dtype, name: str
) -> None:
    """Checks that images need no more memory than is allowed.

    Args:
        count: int, the number of images.
        shape: tuple, of one image.
        dtype: `np.dtype` of the images.
        name: str, where they come from, for the message.

    Raises:
        ValueError: if they need more than 32 GiB.
    """
    needed = count * math.prod(shape) * dtype.itemsize
    if needed > MAX_BYTES:
        raise ValueError(
            f"The {count:,} images of {name!r} need {needed / 2**30:.0f} GiB "
            f"of memory at {shape}, and {MAX_BYTES // 2**30} GiB are allowed. "
            "Use `limit` or a smaller `image_size`, or write the images to "
            "files and use 'folder:PATH', which decodes them on demand."
        )


@contextlib.contextmanager
def open_arrays(path: Path) -> Iterator[ArrayFile | HDF5File | ZarrStore]:
    """Opens what holds arrays, by its suffix, one of `SUFFIXES`."""
    suffix = path.suffix.lower()
    if suffix in HDF5_SUFFIXES:
        yield HDF5File(path)
    elif suffix == ZARR_SUFFIX:
        yield ZarrStore(path)
    else:
        with ArrayFile(path) as arrays:
            yield arrays


def _find_arrays(
    arrays: ArrayFile | HDF5File | ZarrStore, split: str
) -> tuple[str, str | None]:
    """Returns the names of a split's images and of its labels, if any."""
    path = str(arrays.path)
    if arrays.names == [""]:
        if split_name(split) != "train":
            raise SplitError(
                f"{path!r} holds one array, which is the split 'train'. "
                f"Received: split={split!r}"
            )
        return "", None
    pairs = [
        pair
        for one in split_names(split)
        for pair in (
            (f"x_{one}", f"y_{one}"),
            (f"{one}_images", f"{one}_labels"),
            (f"images_{one}", f"labels_{one}"),
        )
    ]
    if split_name(split) == "train":
        pairs += [("images", "labels"), ("x", "y")]
    for images, labels in pairs:
        if images in arrays.names:
            return images, labels if labels in arrays.names else None
    raise SplitError(
        f"{path!r} has no images for split={split!r}. It holds "
        f"{arrays.names}; one of {[images for images, _ in pairs]} is needed."
    )


@contextlib.contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """Turns any exception about a damaged file into one that names it."""
    try:
        yield
    except ImportError as error:
        raise ValueError(
            f"{str(path)!r} needs {error.name}: "
            'pip install "kerassl[scientific]"'
        ) from error
    except Exception as error:
        raise ValueError(
            f"{str(path)!r} is not a readable {path.suffix} file: {error}"
        ) from error
