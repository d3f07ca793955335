"""The feature map of an encoder, before its pooling."""

import math
from typing import Any

import keras
from keras import layers

from kerassl.encoders.graph import first_tokens_after
from kerassl.networks import replay

POOLS_OF_MAPS = (layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D)
POOLS_OF_TOKENS = (layers.GlobalAveragePooling1D, layers.GlobalMaxPooling1D)


def feature_map(encoder: keras.Model) -> keras.Model:
    """Returns the part of an encoder up to its last feature map.

    For a network that ends with global pooling, this is the map that is pooled.
    For a ViT it is the tokens of the patches, without the class token, arranged
    as the patches are.

    Args:
        encoder: Functional `keras.Model` from images to features `(N, D)` that
            ends with global pooling or a class token, as those of
            `kerassl.encoders.build` and `as_encoder` do.

    Returns:
        A `keras.Model` from images to maps `(N, h, w, D)` that shares the
        encoder's layers.

    Raises:
        ValueError: if the encoder ends in another way.

    Example:
    ```python
    encoder = kerassl.encoders.build("resnet_18_small", (32, 32, 3))
    maps = kerassl.encoders.feature_map(encoder)       # (N, 4, 4, 512)
    ```
    """
    images = keras.Input(encoder.input_shape[1:], name="images")
    calls: list[tuple[keras.layers.Layer, Any]] = []

    def call(layer: keras.layers.Layer, x: Any, *args: Any, **kwargs: Any):
        calls.append((layer, x))
        return layer(x, *args, **kwargs)

    try:
        replay(encoder, images, call)
    except ValueError as error:
        raise ValueError(
            f"The encoder {encoder.name!r} is not a Functional model, so its "
            "feature map can't be found."
        ) from error
    x = _before_pooling(calls)
    if x is None:
        raise ValueError(
            f"The encoder {encoder.name!r} has no feature map (height, width, "
            "channels) that it pools at its end. Take one from "
            "`kerassl.encoders.build`, or a model that ends with "
            "`GlobalAveragePooling2D`."
        )
    if len(x.shape) == 3:
        x = _as_map(x, images.shape[1], images.shape[2], encoder.name)
    return keras.Model(images, x, name=f"{encoder.name}_map")


def _before_pooling(calls: list[tuple[keras.layers.Layer, Any]]) -> Any:
    last, x = calls[-1]
    if isinstance(last, (*POOLS_OF_MAPS, *POOLS_OF_TOKENS)):
        return x
    # This is how `as_encoder` takes the class token: it crops all others.
    layer, tokens = calls[-2] if len(calls) > 1 else calls[-1]
    if (
        isinstance(last, layers.Reshape)
        and isinstance(layer, layers.Cropping1D)
        and layer.cropping == (0, tokens.shape[1] - 1)
    ):
        first = first_tokens_after([x for x, _ in calls[:-2]]) or 1
        return layers.Cropping1D((first, 0), name="patches")(tokens)
    return None


def _as_map(
    tokens: Any, height: int | None, width: int | None, name: str
) -> Any:
    _, count, channels = tokens.shape
    if count and height and width:
        rows = round(math.sqrt(count * height / width))
        if rows and count % rows == 0:
            shape = (rows, count // rows, channels)
            return layers.Reshape(shape, name="grid")(tokens)
    raise ValueError(
        f"The {count} tokens of the encoder {name!r} are not a grid of patches "
        f"of {height}x{width} images."
    )
