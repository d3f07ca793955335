"""Images from TensorFlow Datasets (TFDS)."""

import difflib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import keras
import numpy as np

from kerassl.data.arrays import (
    check_memory,
    check_numbers,
    parse_size,
    resize_image,
)
from kerassl.data.errors import SplitError
from kerassl.data.photos import Photos
from kerassl.data.tfrecords import index_tfrecords
from kerassl.value_range import Stated

if TYPE_CHECKING:
    from tensorflow_datasets.core import DatasetBuilder

_CONNECT_SECONDS = 10
_CONNECT_HOSTS = 3
_CURES = (
    "Build it with `tfds build {name}`, point `data_dir` (or TFDS_DATA_DIR) to "
    "it, or use your own images ('folder:PATH', 'PATH.npz') or the data set "
    "that comes with kerassl, 'fashion_mnist_small'."
)

_logger = logging.getLogger("kerassl")


def find_builder(name: str, data_dir: str | None) -> "DatasetBuilder | None":
    """Returns the builder of a data set, or `None` for an unknown name.

    Args:
        name: str, such as `"cifar10"` or `"NAME/CONFIG:VERSION"`.
        data_dir: path of TFDS's folder, or `None` for the default.

    Raises:
        ValueError: if TFDS knows the name, but not its version or config.
    """
    import tensorflow_datasets as tfds

    try:
        return tfds.builder(name, data_dir=data_dir)
    except (tfds.core.registered.DatasetNotFoundError, ImportError):
        return None
    except (AssertionError, ValueError) as error:
        raise ValueError(f"TFDS can't open {name!r}: {error}") from error


def nearest_names(name: str) -> list[str]:
    """Returns up to three TFDS names that are spelled most like `name`."""
    import tensorflow_datasets as tfds

    names = tfds.list_builders(with_community_datasets=False)
    return difflib.get_close_matches(name.lower(), names, n=3)


def image_shape(builder: "DatasetBuilder") -> tuple[int | None, ...]:
    """Returns the shape of a builder's images; sizes that vary are `None`."""
    image_key, _ = _find_features(builder)
    return builder.info.features[image_key].shape


def load_tfds(
    builder: "DatasetBuilder",
    split: str,
    image_size: int | tuple[int, int] | None,
    limit: int | None,
    value_range: Stated = None,
) -> tuple[np.ndarray | Photos, np.ndarray | None, tuple[str, ...] | None]:
    """Reads the images of a TFDS builder.

    Color images of different sizes stay in their TFRecord files until they are
    needed. Others are read into memory.

    Args:
        builder: the builder. Its data are downloaded if they aren't prepared.
        split: str, a split or a slice of one, as in `"train[:1000]"`.
        image_size: int, `(height, width)`, or `None` to keep their size.
        limit: int, how many images to read, or `None` for all.
        value_range: as in `load_file`.

    Returns:
        A tuple: images `(N, H, W, C)`, labels and class names. The last two
        may be `None`.

    Raises:
        SplitError: if there is no such split.
        ValueError: if the data set has no images, or they need an `image_size`
            or too much memory.
        FileNotFoundError: if the data can't be downloaded.
    """
    name = builder.info.full_name
    image_key, label_key = _find_features(builder)
    feature = builder.info.features[image_key]
    size = None if image_size is None else parse_size(image_size)
    if size is None and None in feature.shape:
        raise ValueError(
            f"The images of {name!r} have different sizes (shape "
            f"{feature.shape}), so `image_size` is needed, such as "
            "image_size=224."
        )
    _prepare(builder)
    try:
        count = builder.info.splits[split].num_examples
    except (KeyError, ValueError) as error:
        raise SplitError(
            f"{name!r} has no split {split!r}. It has "
            f"{sorted(builder.info.splits)}, and slices such as "
            "'train[:1000]'."
        ) from error
    count = count if limit is None else min(count, limit)
    names = None
    if label_key is not None:
        names = tuple(builder.info.features[label_key].names)
    if size is not None and _stays_in_files(builder, feature):
        files = [
            (Path(part.filename), part.skip, part.take)
            for part in builder.info.splits[split].file_instructions
        ]
        records, found = index_tfrecords(files, image_key, label_key, count)
        known = None if None in found else np.array(found, "int64")
        return Photos(records, size, known), known, names

    shape = feature.shape if size is None else (*size, feature.shape[-1])
    dtype = np.dtype(feature.np_dtype)
    check_numbers((count, *shape), dtype.name, f"images of {name}", value_range)
    check_memory(count, shape, dtype, name)
    images = np.empty((count, *shape), dtype)
    labels = None if label_key is None else np.empty(count, "int64")
    examples = _examples(builder, split, count, image_key, label_key)
    for index, (image, label) in enumerate(examples):
        images[index] = image if size is None else resize_image(image, size)
        if labels is not None:
            labels[index] = label
    return images, labels, names


def _stays_in_files(builder: "DatasetBuilder", feature: Any) -> bool:
    """Says whether images are photos that can be read one by one."""
    file_format = getattr(builder.info.file_format, "value", "")
    *size, channels = feature.shape
    is_photo = None in size and channels == 3
    return (
        is_photo and file_format == "tfrecord" and feature.np_dtype == "uint8"
    )


def _find_features(builder: "DatasetBuilder") -> tuple[str, str | None]:
    """Returns the keys of the image and of the label, or `None` for it."""
    import tensorflow_datasets as tfds

    features = builder.info.features

    def find(kind: type, preferred: str) -> str | None:
        keys = [k for k, v in features.items() if isinstance(v, kind)]
        return preferred if preferred in keys else next(iter(keys), None)

    image_key = None
    if hasattr(features, "items"):
        image_key = find(tfds.features.Image, "image")
    if image_key is None:
        raise ValueError(
            f"{builder.info.full_name!r} has no image feature, which kerassl "
            f"needs. Its features are {features}"
        )
    return image_key, find(tfds.features.ClassLabel, "label")


def _prepare(builder: "DatasetBuilder") -> None:
    """Downloads a data set unless it is on this machine."""
    if builder.is_prepared():
        return
    name = builder.info.full_name
    _logger.warning("%s isn't in %s; downloading it.", name, builder.data_dir)
    try:
        _check_connection(builder)
        builder.download_and_prepare()
    except Exception as error:
        raise FileNotFoundError(
            f"The data set {name!r} isn't in {str(builder.data_dir)!r}, and "
            f"downloading it failed ({type(error).__name__}: "
            f"{str(error).strip()[:300]}). " + _CURES.format(name=builder.name)
        ) from error


def _check_connection(builder: "DatasetBuilder") -> None:
    """Raises a `ConnectionError` at once where TFDS would retry for minutes.

    This is so if no server of the data set answers and none of its files was
    downloaded before. Data sets without known addresses pass.
    """
    import requests

    files = builder.url_infos or {}
    downloads = Path(builder.data_dir_root) / "downloads"
    sizes = {info.size for info in files.values()}
    for pattern in ("*", "manual/*", f"{builder.name}/**/*"):
        for path in downloads.glob(pattern):
            if path.is_file() and path.stat().st_size in sizes:
                return
    hosts = {urlsplit(u).netloc: u for u in files if u.startswith("http")}
    tried = dict(list(hosts.items())[:_CONNECT_HOSTS])
    for url in tried.values():
        try:
            seconds = _CONNECT_SECONDS / len(tried)
            requests.get(url, stream=True, timeout=seconds).close()
        except requests.exceptions.ConnectionError:
            continue
        except requests.exceptions.RequestException:
            pass  # A slow answer, for example: there is a connection.
        return
    if tried:
        raise ConnectionError(f"no connection to {' or '.join(tried)}")


def _examples(
    builder: "DatasetBuilder",
    split: str,
    count: int,
    image_key: str,
    label_key: str | None,
) -> Iterator[tuple[np.ndarray, int | None]]:
    """Yields pairs of an image and a label, or `None` for it."""
    keys = [key for key in (image_key, label_key) if key is not None]
    try:
        # Works without TensorFlow, if the file format has random access.
        source = builder.as_data_source(split)
    except (NotImplementedError, ImportError):
        source = None
    if source is not None:
        for index in range(count):
            example = source[index]
            yield example[image_key], example.get(label_key)
        return

    import tensorflow as tf
    import tensorflow_datasets as tfds

    if keras.backend.backend() != "tensorflow":
        try:  # Otherwise TensorFlow takes GPU memory from the backend.
            tf.config.set_visible_devices([], "GPU")
        except RuntimeError:
            pass  # TensorFlow is running: whoever started it decided this.
    # Read once, and not to the end: a cache would only take memory and warn.
    config = tfds.ReadConfig(try_autocache=False)
    dataset = builder.as_dataset(split=split, read_config=config).take(count)
    dataset = dataset.map(lambda example: [example[key] for key in keys])
    # Batches are three times as fast, but need images of one size.
    static = None not in builder.info.features[image_key].shape
    batches = dataset.batch(512 if static else 1).prefetch(2)
    for images, *labels in batches.as_numpy_iterator():
        yield from zip(images, labels[0] if labels else [None] * len(images))
