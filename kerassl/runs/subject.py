"""The encoder and the images of a command, checked and identified."""

import contextlib
import hashlib
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerassl import data as kerassl_data
from kerassl.data import ImageData
from kerassl.data.arrays import SUFFIXES
from kerassl.data.records import Files
from kerassl.data.row_groups import RowGroups
from kerassl.data.spread import spread
from kerassl.presets import load_encoder
from kerassl.presets.load import KERASHUB, full_name, open_source
from kerassl.run_folder import folder_of, read_settings
from kerassl.value_range import Stated, ValueRange

# The images that `images_hash` looks into, and how far.
HASHED, HASHED_BYTES = 32, 2**16


def open_encoder(source: str | Path) -> keras.Model:
    """Loads an encoder whose weights are finite.

    Args:
        source: as in `kerassl.load_encoder`.

    Raises:
        ValueError: if a weight isn't finite.
        FileNotFoundError: if the encoder doesn't exist.
    """
    encoder = load_encoder(source)
    check_finite(encoder, source)
    return encoder


def recorded_range(source: str | Path) -> ValueRange | None:
    """Returns the range of values of the images that an encoder learned from.

    Args:
        source: as in `kerassl.load_encoder`.

    Returns:
        A `ValueRange`, or `None` if they were in [0, 255], or it isn't known.
    """
    if (folder := folder_of(source)) is not None:
        return _range(read_settings(folder).get("value_range"))
    if full_name(source).startswith(KERASHUB):
        return None
    preset = open_source(source)
    return None if preset is None else _range(preset.info.value_range)


def _range(recorded: dict[str, list[float]] | None) -> ValueRange | None:
    if recorded is None:
        return None
    return ValueRange(tuple(recorded["low"]), tuple(recorded["high"]))


def check_finite(encoder: keras.Model, source: str | Path) -> None:
    """Checks that the weights of an encoder are finite.

    Raises:
        ValueError: if not.
    """
    broken = [
        weight.path
        for weight in encoder.weights
        if not np.isfinite(keras.ops.convert_to_numpy(weight)).all()
    ]
    if broken:
        raise ValueError(
            f"{source} has {len(broken)} weights that hold NaN or infinite "
            f"values, such as {broken[0]}: its training has diverged."
        )


def load_size(encoder: keras.Model) -> tuple[int, int] | None:
    """Returns the size to load images in, `None` if the encoder takes any."""
    height, width = encoder.input_shape[1:3]
    return None if None in (height, width) else (height, width)


def load_images(
    encoder: keras.Model,
    source: str | Path,
    data: str,
    split: str,
    *,
    value_range: Stated = None,
    **options: Any,
) -> ImageData:
    """Loads images as an encoder takes them.

    Args:
        encoder: `keras.Model`.
        source: where it is from, as in `kerassl.load_encoder`.
        data: str, as in `kerassl.data.load`.
        split: str, as in `kerassl.data.load`.
        value_range: as in `kerassl.data.load`; by default that of the images
            that the encoder learned from.
        **options: other arguments of `kerassl.data.load`.

    Raises:
        ValueError: if the images are refused, or have other channels.
        FileNotFoundError: if the data don't exist.
    """
    part = kerassl_data.load(
        data,
        split,
        image_size=load_size(encoder),
        channels=encoder.input_shape[-1],
        value_range=value_range or recorded_range(source),
        **options,
    )
    check_channels(encoder, part)
    return part


def check_channels(encoder: keras.Model, part: ImageData) -> None:
    """Checks that images have as many channels as the encoder takes.

    Raises:
        ValueError: if not.
    """
    channels = encoder.input_shape[-1]
    if part.image_shape[-1] != channels:
        raise ValueError(
            f"The encoder takes images of {channels} channels; those of "
            f"{part.name} have {part.image_shape[-1]}."
        )


def add_encoder(digest: Any, encoder: keras.Model) -> None:
    """Adds the architecture and the weights to a hash."""
    digest.update(encoder.to_json().encode())
    for weight in encoder.get_weights():
        digest.update(weight.tobytes())


def images_hash(part: ImageData) -> str:
    """Returns a hash that tells whether a run resumes on the same images.

    It covers the labels; of image files the names, relative to their folder,
    which may have moved, and the first bytes of some; of arrays in files the
    pixels of some. What libraries decode is left out, since their versions
    differ, and what is far away.
    """
    digest = hashlib.sha256()
    if part.labels is not None:
        digest.update(np.asarray(part.labels).tobytes())
    images = part.images
    some = spread(len(images), HASHED).tolist()
    if isinstance(images, np.ndarray):
        if part.name.lower().rstrip("/").endswith(SUFFIXES):
            for i in some:
                digest.update(np.ascontiguousarray(images[i]).tobytes())
        return digest.hexdigest()
    records = images.records
    if isinstance(records, Files):
        names = "\0".join(records.names)
        digest.update(names.encode("utf-8", "surrogateescape"))
    if not (records.is_remote or isinstance(records, RowGroups)):
        for i in some:
            with contextlib.suppress(OSError, ValueError):  # Unreadable.
                source = records.source(i)
                if isinstance(source, (str, os.PathLike)):
                    source = open(source, "rb")
                with source:
                    digest.update(source.read(HASHED_BYTES))
    return digest.hexdigest()


def add_images(digest: Any, part: ImageData) -> None:
    """Adds names to a hash, and at most a thousand images in memory."""
    images = part.images
    if isinstance(images, np.ndarray) or images.in_memory:
        step = -(-len(images) // 1000)
        digest.update(images[::step].tobytes())
    if not isinstance(images, np.ndarray):
        names = "\0".join(images.names())
        digest.update(names.encode("utf-8", "surrogateescape"))
