"""Encoders of other libraries by name: `keras:NAME` and `hub:PRESET`."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from kerassl.choices import check_choice
from kerassl.encoders.adapt import as_encoder
from kerassl.encoders.assembly import accepted
from kerassl.encoders.kerashub import hub_name
from kerassl.encoders.normalization import normalizes, standardization
from kerassl.encoders.sizes import EMBEDDINGS
from kerassl.image_format import channels_last, flat_layers
from kerassl.layers.positions import (
    bicubic_matrix,
    parts_of,
    resized_positions,
)
from kerassl.names import APPLICATIONS, split_library
from kerassl.networks import replay
from kerassl.reading import one_line


def from_library(
    name: str,
    image_shape: tuple[int, int, int],
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> keras.Model:
    """Returns the encoder that a name with a library's prefix stands for.

    Args:
        name: str, `keras:NAME` or `hub:PRESET`, as in `build`.
        image_shape: `(height, width, channels)`.
        mean: as in `as_encoder`; by default what belongs to the model.
        std: likewise.

    Raises:
        ValueError: if there is no such model, or the shape doesn't fit it.
    """
    library, rest = split_library(name)
    normalization: Any = None
    options: dict[str, Any] = {}
    if library == "keras":
        has_numbers = mean is not None or std is not None
        body, normalization = _application(rest, image_shape, has_numbers)
    else:
        body, normalization = _preset(rest, image_shape)
    if mean is not None or std is not None:
        options = dict(mean=mean, std=std)
    elif normalization is not None:
        options = dict(normalization=normalization)
    encoder = as_encoder(body, **options)
    if encoder.input_shape[1:] == image_shape:
        return encoder
    # KerasHub's convolutional networks are made for images of any size.
    images = keras.Input(image_shape, name="images")
    features = replay(encoder, images)
    return accepted(keras.Model(images, features, name=encoder.name))


def _application(
    name: str, shape: tuple, has_numbers: bool
) -> tuple[keras.Model, Any]:
    """Returns a model of `keras.applications`, untrained, and what precedes it.

    Unless the mean and the deviation are given (`has_numbers`), that is the
    `preprocess_input` of its module, which does nothing where the model
    normalizes images itself.
    """
    check_choice("model of `keras.applications`", name, APPLICATIONS)
    make = getattr(keras.applications, name)
    # ConvNeXt normalizes its pooled features.
    pooling = "avg" if name.startswith("ConvNeXt") else None
    try:
        with channels_last():
            body = make(
                include_top=False,
                weights=None,
                input_shape=shape,
                pooling=pooling,
            )
    except ValueError as error:
        height, width, _ = shape
        raise ValueError(
            f"`keras.applications.{name}` can't take images of "
            f"{height}x{width}: {error}"
        ) from error
    if shape[-1] != 3:
        # `preprocess_input` is for three channels.
        if normalizes(body) or has_numbers:
            return body, None
        return body, standardization(shape[-1], None, None)
    module = make.__module__.rpartition(".")[-1]
    return body, getattr(keras.applications, module).preprocess_input


def released(name: str) -> tuple[keras.Model, Any]:
    """Loads a preset of KerasHub.

    Args:
        name: str, a preset's name, address or folder.

    Returns:
        A tuple of the backbone, in float32, and the preset's image converter,
        or `None` if it has none.

    Raises:
        FileNotFoundError: if the preset can't be fetched.
        ValueError: if there is none, or it holds no vision backbone.
    """
    import keras_hub

    if not any(mark in name for mark in ":/\\."):
        check_choice(
            "preset of KerasHub",
            name,
            keras_hub.models.Backbone.presets,
            ["see https://keras.io/keras_hub/presets"],
        )
    try:
        with channels_last():
            backbone = keras_hub.models.Backbone.from_preset(
                name, dtype="float32"
            )
    except OSError as error:
        raise FileNotFoundError(
            f"KerasHub's preset {name} can't be fetched "
            f"({type(error).__name__}). Without a connection, give the folder "
            "of a copy: hub:PATH."
        ) from error
    except Exception as error:  # of any type, from any layer
        raise ValueError(
            f"KerasHub can't load the preset {name!r}: "
            f"{one_line(str(error), 300)}"
        ) from error
    if getattr(backbone, "image_shape", None) is None:
        raise ValueError(
            f"The preset {name!r} holds a {type(backbone).__name__}, which "
            "doesn't encode images."
        )
    try:
        converter = keras_hub.layers.ImageConverter.from_preset(name)
    except (ValueError, OSError):
        # `as_encoder` knows whether the backbone needs one.
        converter = None
    return backbone, converter


def _preset(name: str, shape: tuple) -> tuple[keras.Model, Any]:
    """Returns backbone and image converter for images of that shape."""
    backbone, converter = released(name)
    known = backbone.image_shape
    if known[-1] != shape[-1]:
        raise ValueError(
            f"The preset {name!r} takes images with {known[-1]} channels. "
            f"Received: {shape}"
        )
    fits = all(size in (None, own) for own, size in zip(shape, known))
    return backbone if fits else _at_shape(backbone, shape, name), converter


def _at_shape(backbone: Any, shape: tuple, name: str) -> Any:
    """Returns a backbone for another image shape, with the same weights."""
    config = {**backbone.get_config(), "image_shape": shape}
    if "position_embedding_shape" in config:
        config["position_embedding_shape"] = shape
    try:
        with channels_last():
            resized = type(backbone).from_config(config)
    except ValueError as error:
        height, width, _ = shape
        raise ValueError(
            f"The preset {name!r} can't take images of {height}x{width}: "
            f"{error}"
        ) from error
    places = {}
    for old, new in zip(_embeddings(backbone), _embeddings(resized)):
        places[id(parts_of(new).positions)] = _positions(old, new)
        if hasattr(new, "interpolated_position_embeddings"):
            # What files contain.
            places[id(new.position_embeddings)] = _positions(old, new)
    for source, target in zip(backbone.weights, resized.weights):
        value = places.get(id(target))
        if value is None:
            value = keras.ops.convert_to_numpy(source)
        if value.shape != tuple(target.shape):
            raise ValueError(
                f"The preset {name!r} is tied to images of "
                f"{backbone.image_shape}. Received: {shape}"
            )
        target.assign(value)
    return resized


def _embeddings(backbone: Any) -> list[Any]:
    found = flat_layers(backbone)
    return [layer for layer in found if hub_name(layer) in EMBEDDINGS]


def _positions(old: Any, new: Any) -> np.ndarray:
    """Returns the positions of one embedding for the grid of another.

    DINOv2's are interpolated from those that it was trained with.
    """
    source, target = parts_of(old), parts_of(new)
    table, grid = source.positions, source.grid
    if hasattr(old, "interpolated_position_embeddings"):
        table, patch = old.position_embeddings, old.patch_size
        height, width = old.position_embedding_shape
        grid = height // patch, width // patch
    values = keras.ops.convert_to_numpy(table)
    shape = tuple(target.positions.shape)
    values = values.reshape(-1, shape[-1])

    def matrix(length: int, other: int) -> np.ndarray:
        if length == other:
            return np.eye(length, dtype="float32")
        return bicubic_matrix(length, other, **source.interpolation)

    resized = resized_positions(values, grid, target.grid, matrix)
    return resized.reshape(shape)
