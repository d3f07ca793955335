"""Loads images from any source."""

import contextlib
import dataclasses
import difflib
import functools
import itertools
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kerassl.data.arrays import (
    SUFFIXES,
    check_memory,
    load_file,
    open_arrays,
)
from kerassl.data.files import find_images
from kerassl.data.folder import load_folder
from kerassl.data.hub import URL, load_hub
from kerassl.data.image_data import ImageData
from kerassl.data.image_files import read_header
from kerassl.data.levels import decoder_for, in_levels
from kerassl.data.lists import load_list
from kerassl.data.parquet import load_parquet
from kerassl.data.photo_checks import readable
from kerassl.data.photos import DEFAULT_SIZE, Photos
from kerassl.data.planes import Planes
from kerassl.data.records import Files, Records
from kerassl.data.remote import find_files, is_url
from kerassl.data.tars import load_tars
from kerassl.names import MAX_UNREADABLE
from kerassl.value_range import Stated

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
    "'cifar10' or 'tfds:NAME[/config][:version]', 'folder:PATH', 'PATH.npz', "
    "'PATH.npy', 'PATH.h5', 'PATH.zarr', a list 'PATH.txt' or 'PATH.csv', "
    "'PATH.tar', 'PATH.parquet' or 'hf:OWNER/NAME'"
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
    channels: int | None = None,
    remembered: str | os.PathLike | None = None,
    value_range: Stated = None,
) -> ImageData:
    """Loads images from any source: values in [0, 255], 1 to 16 channels.

    Args:
        spec: str, the source.
            `"fashion_mnist_small"`: 10,000 training and 2,000 test images of
            Fashion-MNIST, which come with kerassl.
            `"cifar10"`, `"tfds:NAME[/config][:version]"`: a data set of
            TensorFlow Datasets, downloaded unless it is on this machine.
            `"folder:PATH"` or a folder's path: all image files that Pillow
            reads, as RGB, or all channels of TIFF, DICOM, `.npy` and 16-bit
            PNG files; labeled by their first-level folder, or unlabeled if
            any image is directly in the folder. Folders named `train`,
            `training`, `test`, `testing`, `val`, `valid` or `validation`, in
            any case, are splits if nothing else is next to them. Photos are
            decoded on demand; up to 1 GiB of them stay in memory, resized.
            `"PATH.npz"`: arrays `images` and `labels`, or `x_train`,
            `y_train`, `x_test`, `y_test`; the same in HDF5 files, `"PATH.h5"`
            or `"PATH.hdf5"`, and Zarr stores, `"PATH.zarr"`. `"PATH.npy"`: the
            images.
            `"PATH.txt"`: a list of image files. `"PATH.csv"`: a table of them,
            with the column `path` and optionally `label` and `split`.
            `"PATH.tar"`: images with their `.cls`, as WebDataset writes them;
            `*` stands for any characters and `{000..146}` for numbers, as in
            `"shards/train-*.tar"`. They can be at a URL, such as
            `"s3://bucket/train-{000..146}.tar"`.
            `"PATH.parquet"`: columns `image` and `label`, as in data sets of
            Hugging Face; several files and URLs as for tar files.
            `"hf:OWNER/NAME"`: a data set of the Hugging Face Hub that has
            Parquet files, which are downloaded; `"hf:OWNER/NAME@REVISION"` one
            state of it, and `"hf:OWNER/NAME/FOLDER"` one of several in a
            repository. `"hf://datasets/OWNER/NAME"`,
            `"hf://datasets/OWNER/NAME@REVISION/FOLDER"`: the same, streamed.
        split: str: `"train"`, `"test"`, `"validation"`, or another of the names
            above; in tables and on the Hub also other names that they use, such
            as `"dev"`; with TFDS also slices such as `"train[:1000]"`.
        image_size: int, `(height, width)`, or `None` to keep the size. Of
            other images the short side is resized and the center cropped.
            For photos, `None` means 224.
        limit: int > 0, the number of images to load at most: the first ones of
            arrays, and of TFDS, which shuffles them when it prepares them;
            other photos evenly spaced, since the first often share a class.
            The others aren't read. `None` loads all.
        data_dir: path of TFDS's data sets, or `None` for TFDS's default.
        max_unreadable: float in [0, 1], the share of unreadable images in a
            folder above which loading fails. Fewer are skipped, and named in
            the log.
        channels: int or `None`, the number that an encoder takes. For 3, the
            channel of gray images is repeated. Image files of another number
            are unreadable; arrays stay as they are.
        remembered: path of a file in which `ImageData.remember` keeps what a
            folder or tar files hold; it need not exist. With it, the folder is
            listed again only if anything in it was added, removed or renamed,
            and tar files are read only if they have changed.
        value_range: the values that become 0 and 255, those outside being
            clipped: a pair `(0, 10_000)`; a pair of lists, with a number for
            each channel; percentiles of each channel, `("1%", "99%")`,
            measured on 64 images; or either pair as a string, `"1%,99%"`. By
            default uint8 and float arrays stay as they are, uint16 has its
            whole range, and each DICOM file its own window. Others need it.

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
    images, labels, class_names = find(
        spec,
        split,
        image_size=image_size,
        limit=limit,
        data_dir=data_dir,
        remembered=remembered,
        value_range=value_range,
    )
    notes: tuple[str, ...] = ()
    listing = getattr(images, "listing", None)
    used = None
    if isinstance(images, Photos):
        images.decoder = decoder_for(images, channels, value_range)
        images = readable(
            images, spec.removeprefix("folder:"), class_names, max_unreadable
        )
        labels, notes = images.labels, tuple(images.notes)
        spec = images.pinned or spec
        is_path = spec.startswith("folder:") or bool(set(spec) & set("/\\"))
        # TFDS takes precedence over a folder of the same name.
        if isinstance(images.records, Files) and not is_path:
            if os.path.isdir(os.path.expanduser(spec)):
                spec = f"folder:{spec}"  # Not a data set that others know.
        if isinstance(images.decoder, Planes):
            used = images.decoder.value_range
    else:
        images, used = in_levels(images, value_range, f"images of {spec}")
        if channels == 3 and images.shape[-1] == 1:
            check_memory(
                len(images), (*images.shape[1:3], 3), images.dtype, spec
            )
            images = np.repeat(images, 3, axis=-1)
    return ImageData(
        images,
        labels,
        class_names,
        spec,
        notes=notes,
        listing=listing,
        value_range=used,
    )


def find(
    spec: str,
    split: str = "train",
    *,
    image_size: int | tuple[int, int] | None = None,
    limit: int | None = None,
    data_dir: str | None = None,
    remembered: str | os.PathLike | None = None,
    value_range: Stated = None,
) -> tuple[np.ndarray | Photos, np.ndarray | None, tuple[str, ...] | None]:
    """Finds images without looking whether they can be read, or their range.

    Args:
        spec: see `load`.
        split: see `load`.
        image_size: see `load`.
        limit: see `load`.
        data_dir: see `load`.
        remembered: see `load`.
        value_range: see `load`; here only checked to be there for numbers that
            need one.

    Returns:
        A tuple: the images, labels and class names; the last two may be `None`.

    Raises:
        ValueError: see `load`.
        FileNotFoundError: see `load`.
    """
    source = _find(spec, data_dir)
    images: np.ndarray | Photos
    names: tuple[str, ...] | None
    if isinstance(source, _File):
        images, labels = load_file(
            source.path, split, image_size, limit, value_range
        )
        names = _FASHION_CLASSES if spec == _EMBEDDED else None
    elif isinstance(source, _Photos):
        load_photos = source.load
        if load_photos in (load_folder, load_tars):
            load_photos = functools.partial(load_photos, remembered=remembered)
        images, names = load_photos(source.path, split, image_size, limit)
        labels = images.labels
    else:
        from kerassl.data.tfds import load_tfds

        images, labels, names = load_tfds(
            source, split, image_size, limit, value_range
        )
    if not len(images):
        raise ValueError(f"{spec!r} holds no image.")
    return images, labels, names


def peek_size(spec: str, *, data_dir: str | None = None) -> tuple[int, bool]:
    """Returns the size of images, usually without loading any.

    Of several files, only the first is read.

    Args:
        spec: see `load`.
        data_dir: see `load`.

    Returns:
        A pair: the short side in pixels, and a bool, whether sizes may differ
        so that `load` resizes the images. If they do, the short side is the
        median of the first images, or 224 for TFDS, which doesn't say.

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
    if isinstance(source, _Photos):
        records = _first_records(source)
        sides = []
        for index in range(len(records)):
            # `load` counts and names the unreadable ones.
            with contextlib.suppress(Exception):
                header = read_header(records.source(index))
                sides.append(min(header.height, header.width))
        if sides:
            return int(np.median(sides)), True
    elif isinstance(source, _File):
        shape = _peek_file(Path(os.path.expanduser(source.path)))
    else:
        from kerassl.data.tfds import image_shape

        height, width, *_ = image_shape(source)
        if height is None or width is None:
            return DEFAULT_SIZE, True
        return min(height, width), False
    if shape is None:  # Rare: `load` finds out, or says what is wrong.
        shape = load(spec, data_dir=data_dir).image_shape
    return min(shape[:2]), isinstance(source, _Photos)


def _first_files(root: Path) -> list[Path]:
    """Returns the first images of a folder, if it can be listed."""
    if root.is_dir():
        # `load` says why a folder can't be listed.
        with contextlib.suppress(OSError):
            names = itertools.islice(find_images(root), _PEEKED_FILES)
            return [root / name for name in names]
    return []


def _first_records(source: "_Photos") -> Records:
    """Returns a few images, without listing a folder or all of many files."""
    path, load_photos = source.path, source.load
    if load_photos is load_folder:
        return Files(_first_files(Path(os.path.expanduser(path))))
    if load_photos in (load_tars, load_parquet):
        path = find_files(path)[0]
    elif load_photos is load_hub:
        load_photos = functools.partial(load_hub, files=1)
    # `load` says what is wrong with a file.
    with contextlib.suppress(ValueError):
        return load_photos(path, "train", 1, _PEEKED_FILES)[0].records
    return Files([])


def _peek_file(path: Path) -> tuple[int, ...] | None:
    """Returns the shape of one image of a file, or `None` if unknown."""
    if not (path.is_file() or path.is_dir()):  # A pipe would wait.
        return None
    # `load` says what is wrong with a file.
    with contextlib.suppress(Exception), open_arrays(path) as arrays:
        for name in arrays.names:
            with contextlib.suppress(Exception):
                shape = arrays[name].shape
                if len(shape) > 2:  # Other arrays are labels.
                    return shape[1:]
    return None


@dataclasses.dataclass(frozen=True)
class _File:
    path: Path


_Loader = Callable[..., tuple[Photos, tuple[str, ...] | None]]


@dataclasses.dataclass(frozen=True)
class _Photos:
    """Photos of any size, which are decoded on demand."""

    path: str
    load: _Loader = load_folder


_SHARDS = (".tar", ".parquet")
_LOADERS: dict[str, _Loader] = {
    ".txt": load_list,
    ".csv": load_list,
    ".tar": load_tars,
    ".parquet": load_parquet,
}


def _find(
    spec: str, data_dir: str | None
) -> "_File | _Photos | DatasetBuilder":
    """Returns the source that a `spec` means."""
    if spec == _EMBEDDED:
        return _File(Path(__file__).parent / _EMBEDDED / "data.npz")
    if spec.startswith("folder:"):  # Whatever its name ends with.
        return _Photos(spec.removeprefix("folder:"))
    if is_url(spec):
        if spec.startswith(URL) and not spec.lower().endswith(_SHARDS):
            return _Photos(spec, load_hub)
        suffix = os.path.splitext(spec.lower())[1]
        if suffix not in _SHARDS:
            raise ValueError(
                f"From URLs, .tar and .parquet files are read. Received: {spec}"
            )
        return _Photos(spec, _LOADERS[suffix])
    if spec.lower().rstrip("/").endswith(SUFFIXES):
        return _File(Path(spec))
    if spec.startswith("hf:"):
        return _Photos(spec, load_hub)
    if os.path.isdir(os.path.expanduser(spec)) and not spec.isidentifier():
        return _Photos(spec)
    if load_photos := _LOADERS.get(os.path.splitext(spec.lower())[1]):
        return _Photos(spec, load_photos)
    builder = _find_builder(spec, data_dir)
    if builder is None:  # A folder with a bare name; TFDS takes precedence.
        return _Photos(spec)
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
