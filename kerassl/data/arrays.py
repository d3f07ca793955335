"""Image arrays: their checks, their files and their resizing."""

import contextlib
from pathlib import Path

import keras
import numpy as np

_CHECKED_IMAGES = 1000
_MEMORY_MAP_BYTES = 2**30


def check_images(images, name="images"):
    """Checks that an array holds images that kerassl can train on.

    The shape must be `(N, height, width, channels)` with 1 or 3 channels, the
    dtype uint8 or float, and the values finite and in `[0, 255]`. The values
    of float images are looked at in at most 1,000 images, evenly spaced.

    Args:
        images: A NumPy array, a tensor of any backend, or anything else with
            `shape`, `dtype` and slicing.
        name: How the error message calls the images.

    Raises:
        ValueError: If the images are something else; the message names what
            was found and what is needed.

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
    _check_shape(shape, name)
    # NumPy, JAX and TensorFlow have a name; PyTorch says "torch.uint8".
    dtype = getattr(images.dtype, "name", str(images.dtype).split(".")[-1])
    if dtype == "uint8":
        return
    if "float" not in dtype:
        raise ValueError(
            f"`{name}` must be uint8 or float with values in [0, 255]. "
            f"Received: dtype={dtype}"
        )
    # A slice, not an index array: every kind of tensor can be sliced.
    sample = images[:: -(-shape[0] // _CHECKED_IMAGES)]
    sample = keras.ops.convert_to_numpy(sample).astype("float32", copy=False)
    low, high = sample.min(), sample.max()
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
            f"Undo the scaling first. {found}"
        )
    if low < 0 or high > 255:
        raise ValueError(f"`{name}` must have values in [0, 255]. {found}")


def _check_shape(shape, name):
    """Raises a ValueError that names the cure for a wrong shape."""
    needed = (
        f"`{name}` must have the shape (N, height, width, channels), "
        f"channels last, with 1 or 3 channels. Received: shape={shape}"
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
    if shape[-1] not in (1, 3):
        if shape[1] in (1, 3):
            needed += (
                ". These look channels first: use `np.moveaxis(images, 1, -1)`"
            )
        raise ValueError(needed)


def check_labels(labels, count, name="labels"):
    """Returns labels as int64 of shape `(count,)`, or raises a ValueError."""
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


def parse_size(image_size):
    """Returns `(height, width)` from an integer or a pair."""
    pair = np.asarray(image_size)
    if pair.ndim == 0:
        pair = np.repeat(pair, 2)
    if pair.shape != (2,) or pair.dtype.kind not in "iu" or pair.min() < 1:
        raise ValueError(
            "`image_size` must be a positive integer or a pair (height, "
            f"width) of them. Received: {image_size!r}"
        )
    return tuple(pair.tolist())


def resize_image(image, size):
    """Resizes one `(H, W, C)` array: short side, then centre crop."""
    from PIL import Image, ImageOps

    if image.shape[:2] == size:
        return image
    # One channel at a time, since Pillow has no float colour mode.
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
    return resized.astype(image.dtype, copy=False)


def load_file(path, split, image_size, limit):
    """Reads images and labels from an `.npz` or `.npy` file.

    Args:
        path: The file.
        split: The split. Of an `.npz` file, it picks the arrays, named as in
            `keras.datasets` (`x_train`, `y_train`) or in MedMNIST
            (`train_images`, `train_labels`). Arrays with no split in their
            name (`images`, `labels`; `x`, `y`) are the split `"train"`.
        image_size: `None`, an integer or `(height, width)`.
        limit: `None` or how many images to keep.

    Returns:
        A pair of images and labels; labels may be `None`.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {str(path)!r}.")
    images, labels = _read_arrays(path, split)
    name = path.name
    if images.ndim == 3 and images.shape[-1] > 4:
        images = images[..., None]
    count = len(images) if images.ndim else 0
    images = images[:limit] if images.ndim else images
    check_images(images, f"images of {name}")
    if labels is not None:
        labels = check_labels(labels, count, f"labels of {name}")[:limit]
    if image_size is not None:
        size = parse_size(image_size)
        if images.shape[1:3] != size:
            images = np.stack([resize_image(image, size) for image in images])
    return images, labels


def _read_arrays(path, split):
    """Returns the raw images and labels that a file holds for a split."""
    if path.suffix.lower() == ".npy":
        if split != "train":
            raise ValueError(
                f"{str(path)!r} holds one array, which is the split 'train'. "
                f"Received: split={split!r}"
            )
        large = path.stat().st_size > _MEMORY_MAP_BYTES
        # Copy on write: the arrays stay writable, as PyTorch wants them.
        with _damage_named(path):
            return np.load(path, mmap_mode="c" if large else None), None
    pairs = [
        (f"x_{split}", f"y_{split}"),
        (f"{split}_images", f"{split}_labels"),
        (f"images_{split}", f"labels_{split}"),
    ]
    if split == "train":
        pairs += [("images", "labels"), ("x", "y")]
    with _damage_named(path):
        arrays = np.load(path)
        names = list(arrays)
    for images, labels in pairs:
        if images in names:
            with _damage_named(path), arrays:
                return arrays[images], arrays.get(labels)
    raise ValueError(
        f"{str(path)!r} has no images for split={split!r}. It holds {names}; "
        f"one of {[images for images, _ in pairs]} is needed."
    )


@contextlib.contextmanager
def _damage_named(path):
    """Turns what NumPy raises on a bad file into an error with its name."""
    try:
        yield
    except Exception as error:
        raise ValueError(
            f"{str(path)!r} is not a readable {path.suffix} file: {error}"
        ) from error
