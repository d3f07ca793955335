"""Normalization of images in [0, 255], before a network."""

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers

from kerassl.encoders.kerashub import hub_name
from kerassl.image_format import flat_layers, pinned
from kerassl.networks import replay

# The mean and standard deviation of ImageNet's channels, for pixels in [0, 1].
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

INCLUDED = "included"
# Layers whose outputs are around 0 for any inputs. `Normalization` may be
# adapted later.
SELF_ADJUSTING = (
    layers.BatchNormalization,
    layers.GroupNormalization,
    layers.LayerNormalization,
    layers.Normalization,
)
# What counts as a normalization in a model whose values can't be computed.
NORMALIZATIONS = (layers.Rescaling, *SELF_ADJUSTING)
# The operations of `x / 255 - 1` in a graph, which are not layers.
ARITHMETIC = ("Add", "Divide", "Multiply", "Subtract", "TrueDivide")
# Raw pixels span 255. Inputs of networks span 1 to 6.
MOST_SPREAD = 128


def standardization(
    channels: int,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> layers.Layer:
    """Returns the layer that subtracts a mean and divides by a deviation.

    Args:
        channels: int.
        mean: the mean of each channel, for pixels in [0, 1]. By default
            ImageNet's, or 0.5 for one channel; others have none.
        std: the standard deviation likewise. By default ImageNet's, or 0.25 for
            one channel.

    Raises:
        ValueError: if their number is not that of the channels, or they are
            missing.
    """
    if channels not in (1, 3) and (mean is None or std is None):
        raise ValueError(
            f"The mean and the deviation of {channels} channels aren't known: "
            "give `mean` and `std` of pixels in [0, 1], which `kerassl data "
            "stats` measures; in a recipe they are normalization.mean and "
            "normalization.std."
        )
    if mean is None:
        mean = IMAGENET_MEAN if channels == 3 else (0.5,)
    if std is None:
        std = IMAGENET_STD if channels == 3 else (0.25,)
    for name, values in (("mean", mean), ("std", std)):
        if np.shape(values) != (channels,):
            raise ValueError(
                f"`{name}` needs a number for each of the {channels} channels, "
                f"for pixels in [0, 1]. Received: {values}"
            )
    if min(std) <= 0:
        raise ValueError(f"`std` must be above 0. Received: {std}")
    # Plain numbers, also of arrays, so that the layer can be saved.
    means, stds = np.asarray(mean, float), np.asarray(std, float)
    return rescaling((1 / (255 * stds)).tolist(), (-means / stds).tolist())


def rescaling(scale: Any, offset: Any, **kwargs: Any) -> layers.Layer:
    """Returns a layer `"normalization"` that scales and shifts channels."""
    return pinned(
        layers.Rescaling(
            scale=scale, offset=offset, name="normalization", **kwargs
        )
    )


def is_converter(given: Any) -> bool:
    """Returns whether an object is a KerasHub image converter."""
    return (hub_name(given) or "").endswith("ImageConverter")


def normalization_layer(
    given: Any, channels: int
) -> layers.Layer | Callable | None:
    """Returns the normalization of `as_encoder`'s argument.

    Args:
        given: a KerasHub image converter, whose resizing is ignored; or a layer
            or function from images in [0, 255] to the network's inputs. A
            function that only scales and shifts channels, like most of
            `keras.applications`, becomes a `Rescaling`.
        channels: int.

    Returns:
        A layer or function; `None` if it would change nothing.

    Raises:
        ValueError: if it is none of these.
    """
    if is_converter(given):
        if given.scale is None and given.offset is None:
            return None
        return rescaling(
            1.0 if given.scale is None else given.scale,
            0.0 if given.offset is None else given.offset,
        )
    if isinstance(given, layers.Layer):
        return pinned(given)
    if not callable(given):
        raise ValueError(
            "`normalization` must be a KerasHub image converter, a layer, a "
            f"function of images, or {INCLUDED!r}. Received: {given!r}"
        )
    function = given
    if "data_format" in inspect.signature(given).parameters:

        def function(x: Any) -> Any:
            return given(x, data_format="channels_last")

    return _as_rescaling(function, channels)


def _as_rescaling(
    function: Callable, channels: int
) -> layers.Layer | Callable | None:
    """Returns an equivalent `Rescaling` if there is one, else the function."""
    shape = (2, 3, 4, channels)
    pixels = np.random.default_rng(0).uniform(0, 255, shape).astype("float32")
    try:
        # Copies, since those of `keras.applications` work in place.
        black, white, found = (
            np.asarray(keras.ops.convert_to_numpy(function(x.copy())))
            for x in (np.zeros_like(pixels), 0 * pixels + 255, pixels)
        )
    except Exception:  # Of any kind: it may need symbolic tensors.
        return function
    if found.shape != shape:
        return function
    offset = black[0, 0, 0].astype(float)
    scale = (white[0, 0, 0] - offset) / 255
    if not np.allclose(pixels * scale + offset, found, rtol=1e-5, atol=1e-4):
        return function
    if np.allclose(scale, 1) and np.allclose(offset, 0):
        return None
    return rescaling(scale.tolist(), offset.tolist())


def normalizes(model: keras.Model) -> bool:
    """Returns whether a model normalizes images in [0, 255] itself.

    The range of the values that reach the first layer with weights decides,
    whatever computes them: layers, inner models or arithmetic such as
    `images / 255`. In a model that isn't a graph, only layers are looked for.
    """
    *_, channels = model.input_shape
    size = [length or 32 for length in model.input_shape[1:3]]
    images = keras.Input((*size, channels))
    try:
        layer, x = _first_weights(model, images)
    except (AttributeError, TypeError, ValueError):
        found = flat_layers(model)
        return any(isinstance(layer, NORMALIZATIONS) for layer in found)
    if isinstance(layer, SELF_ADJUSTING):
        return True
    if x is images:
        return False
    pixels = np.linspace(0, 255, math.prod((*size, channels)))
    pixels = pixels.reshape(1, *size, channels).astype("float32")
    found = keras.ops.convert_to_numpy(keras.Function(images, x)(pixels))
    return float(np.ptp(found)) < MOST_SPREAD


class _Reached(Exception):
    """Ends the replay of a graph early; not an error."""


def _first_weights(model: keras.Model, images: Any) -> tuple[Any, Any]:
    """Returns the first layer with weights, and the tensor that reaches it."""

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(layer, keras.Model):
            return replay(layer, args, call)
        weighted = isinstance(layer, layers.Layer) and layer.weights
        if weighted or isinstance(layer, SELF_ADJUSTING):
            raise _Reached(layer, keras.tree.flatten(args)[0])
        return layer(*args, **kwargs)

    try:
        return None, replay(model, images, call)
    except _Reached as reached:
        layer, x = reached.args
        return layer, x
