"""Loads images from any source."""

import contextlib
import dataclasses
import difflib
import itertools
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kerassl.data.arrays import check_images, load_file
from kerassl.data.decode import open_image
from kerassl.data.files import find_images
from kerassl.data.folder import DEFAULT_SIZE, load_folder
from kerassl.data.image_data import ImageData
from kerassl.data.photos import Photos
from kerassl.data.stored import ArrayFile
from kerassl.names import MAX_UNREADABLE

if TYPE_CHECKING:
    from tensorflow_datasets.core import DatasetBuilder

_EMBEDDED = "fashion_mnist_small"
_FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_FORMS = (
    "'fashion_mnist_small' (comes with kerassl), a TFDS name such as "
    "'cifar10' or 'tfds:NAME[/config][:version]', 'folder:PATH', 'PATH.npz' "
    "or 'PATH.npy'"
)
_PEEKED_FILES = 20


def load(
    spec: str,
    split: str = "train",
    *,
    image_size: int | tuple[int, int] | None = None,
    limit: int | None = None,
    data_dir: str | None = None,
    max_unreadable: float = MAX_UNREADABLE,
) -> ImageData:
    """Loads images from any source.

    Args:
        spec: str, the source.
            `"fashion_mnist_small"`: 10,000 training and 2,000 test images of
            Fashion-MNIST, which come with kerassl.
            `"cifar10"`, `"tfds:NAME[/config][:version]"`: a data set of
            TensorFlow Datasets, downloaded unless it is on this machine.
            `"folder:PATH"` or a folder's path: all image files that Pillow
            reads, as RGB, labeled by their first-level folder, or unlabeled if
            any image is directly in the folder. Folders named `train`,
            `training`, `test`, `testing`, `val`, `valid` or `validation`, in
            any case, are splits if nothing else is next to them. Up to 1 GiB
            is decoded at once, larger folders on demand.
            `"PATH.npz"`: arrays `images` and `labels`, or `x_train`,
            `y_train`, `x_test`, `y_test`. `"PATH.npy"`: the images.
        split: str: `"train"`, `"test"`, `"validation"`, or another of the names
            above; with TFDS also slices such as `"train[:1000]"`.
        image_size: int, `(height, width)`, or `None` to keep the size. Of
            other images the short side is resized and the center cropped.
            For folders, `None` means 224.
        limit: int > 0, the number of images to load at most: the first ones,
            or evenly spaced ones of a folder, whose first images all have one
            class. The others aren't read. `None` loads all.
        data_dir: path of TFDS's data sets, or `None` for TFDS's default.
        max_unreadable: float in [0, 1], the share of unreadable images in a
            folder above which loading fails. Fewer are skipped, and named in
            the log.

    Returns:
        An `ImageData`.

    Raises:
        ValueError: if `spec` or `split` is unknown, or the images are invalid;
            the message says what was received and what is needed.
        FileNotFoundError: if there is nothing at the path, or the data set
            can't be downloaded.

    Example:
    ```python
    data = kerassl.data.load("cifar10")
    images, labels = kerassl.data.load("folder:photos", image_size=96)
    ```
    """
    spec = os.fspath(spec)
    if limit is not None and limit < 1:
        raise ValueError(f"`limit` must be at least 1. Received: {limit}")
    if not 0 <= max_unreadable <= 1:
        raise ValueError(
            f"`max_unreadable` must be in [0, 1]. Received: {max_unreadable}"
        )
    class_names: tuple[str, ...] | None = None
    labels: np.ndarray | None
    images: np.ndarray | Photos
    source = _find(spec, data_dir)
    if isinstance(source, _File):
        images, labels = load_file(source.path, split, image_size, limit)
        if spec == _EMBEDDED:
            class_names = _FASHION_CLASSES
    elif isinstance(source, _Folder):
        images, class_names = load_folder(
            source.path, split, image_size, limit, max_unreadable
        )
        labels = images.labels
    else:
        from kerassl.data.tfds import load_tfds

        images, labels, class_names = load_tfds(
            source, split, image_size, limit
        )
        check_images(images, f"images of {spec}")
    return ImageData(images, labels, class_names, spec)


def peek_size(spec: str, *, data_dir: str | None = None) -> tuple[int, bool]:
    """Returns the size of images, usually without loading any.

    Args:
        spec: see `load`.
        data_dir: see `load`.

    Returns:
        A pair: the short side in pixels, and a bool, whether sizes may differ
        so that `load` resizes the images. If they do, the short side is the
        median of a folder's first images, or 224 for TFDS, which doesn't say.

    Raises:
        ValueError: see `load`.
        FileNotFoundError: see `load`.

    Example:
    ```python
    peek_size("fashion_mnist_small")  # (28, False)
    ```
    """
    spec = os.fspath(spec)
    source = _find(spec, data_dir)
    shape: tuple[int, ...] | None = None
    if isinstance(source, _Folder):
        sides = _peek_folder(source.path.expanduser())
        if sides:
            return int(np.median(sides)), True
    elif isinstance(source, _File):
        shape = _peek_file(source.path.expanduser())
    else:
        from kerassl.data.tfds import image_shape

        height, width, *_ = image_shape(source)
        if height is None or width is None:
            return DEFAULT_SIZE, True
        return min(height, width), False
    if shape is None:  # Rare: `load` finds out, or says what is wrong.
        shape = load(spec, data_dir=data_dir).image_shape
    return min(shape[:2]), isinstance(source, _Folder)


def _peek_folder(root: Path) -> list[int]:
    """Returns the short sides of the first readable images of a folder."""
    sides: list[int] = []
    if root.is_dir():
        # `load` says why a folder can't be listed.
        with contextlib.suppress(OSError):
            for path in itertools.islice(find_images(root), _PEEKED_FILES):
                # `load` counts and names the unreadable ones.
                with contextlib.suppress(Exception), open_image(path) as image:
                    sides.append(min(image.size))
    return sides


def _peek_file(path: Path) -> tuple[int, ...] | None:
    """Returns the shape of one image of a file, or `None` if unknown."""
    if not path.is_file():
        return None
    # `load` says what is wrong with a file.
    with contextlib.suppress(Exception), ArrayFile(path) as arrays:
        for name in arrays.names:
            with contextlib.suppress(Exception):
                shape = arrays[name].shape
                if len(shape) > 2:  # Other arrays are labels.
                    return shape[1:]
    return None


@dataclasses.dataclass(frozen=True)
class _File:
    path: Path


@dataclasses.dataclass(frozen=True)
class _Folder:
    path: Path


def _find(
    spec: str, data_dir: str | None
) -> "_File | _Folder | DatasetBuilder":
    """Returns the source that a `spec` means."""
    if spec == _EMBEDDED:
        return _File(Path(__file__).parent / _EMBEDDED / "data.npz")
    if spec.lower().endswith((".npz", ".npy")):
        return _File(Path(spec))
    if spec.startswith("folder:") or (
        os.path.isdir(spec) and not spec.isidentifier()
    ):
        return _Folder(Path(spec.removeprefix("folder:")))
    builder = _find_builder(spec, data_dir)
    if builder is None:  # A folder with a bare name; TFDS takes precedence.
        return _Folder(Path(spec))
    return builder


def _find_builder(spec: str, data_dir: str | None) -> "DatasetBuilder | None":
    """Returns a TFDS builder, `None` for a folder, or raises."""
    name = spec.removeprefix("tfds:")
    nearest = difflib.get_close_matches(name, [_EMBEDDED])
    if re.fullmatch(r"\w+(/[\w.+-]+)?(:[\w.*]+)?", name):
        from kerassl.data.tfds import find_builder, nearest_names

        builder = find_builder(name, data_dir)
        if builder is not None:
            return builder
        if spec == name and os.path.isdir(spec):
            return None
        nearest += nearest_names(re.split("[/:]", name)[0])
    hint = (
        f" Did you mean {' or '.join(map(repr, nearest))}?" if nearest else ""
    )
    raise ValueError(
        f"There are no images called {spec!r}.{hint} Use one of: {_FORMS}."
    )
