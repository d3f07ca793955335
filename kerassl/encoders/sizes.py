"""One encoder for images of several sizes."""

import math
from typing import Any

import keras
from keras import layers

from kerassl.encoders.graph import ENCODERS_OF_TOKENS
from kerassl.encoders.kerashub import hub_name
from kerassl.image_format import flat_layers
from kerassl.layers import TokensAtSize
from kerassl.layers.positions import parts_of
from kerassl.networks import is_graph, replay

# KerasHub's layers that hold position embeddings of one image size.
EMBEDDINGS = ("DeiTEmbeddings", "DINOV2Embedding", "ViTPatchingAndEmbedding")
# All that work at any size: those above, and others that take any number of
# tokens or patches.
KNOWN = (
    *EMBEDDINGS,
    *ENCODERS_OF_TOKENS,
    "DINOV3Embedding",
)


def at_size(encoder: keras.Model, size: int) -> keras.Model:
    """Returns an encoder for another image size, with the same layers.

    Multi-crop needs it: one encoder sees large and small views. The position
    embeddings of KerasHub's ViTs, DeiTs and DINOv2s are interpolated in each
    call, and gradients reach those that are trained. Such a model is made for
    training. It can't be saved: save the encoder.

    Args:
        encoder: Functional `keras.Model` from images to features.
        size: int, height and width of the images.

    Returns:
        A `keras.Model` that shares all layers and weights; the given encoder,
        if it takes that size.

    Raises:
        ValueError: if a layer is tied to one size, or a ViT's patches don't
            divide the new one.

    Example:
    ```python
    encoder = kerassl.encoders.build("vit_tiny", (224, 224, 3))
    small = kerassl.encoders.at_size(encoder, 96)
    ```
    """
    height, width, channels = encoder.input_shape[1:]
    if height in (None, size) and width in (None, size):
        return encoder

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(layer, TokensAtSize):
            layer = layer.embedding
        if hub_name(layer) in EMBEDDINGS:
            resized = TokensAtSize(layer, size)
            if resized.grid != parts_of(layer).grid:
                layer = resized
            return layer(*args, **kwargs)
        if (
            is_graph(layer)
            and not _accepts(layer, args)
            and _takes_any_size(layer)
        ):
            return replay(layer, args, call)
        if takes_the_first(layer):
            tokens = args[0].shape[1]
            layer = layers.Cropping1D(
                (0, tokens - 1), name=layer.name, dtype=layer.dtype_policy
            )
        return layer(*args, **kwargs)

    try:
        images = keras.Input((size, size, channels), name="images")
        features = replay(encoder, images, call)
    except ValueError as error:
        raise ValueError(
            f"The encoder {encoder.name!r} can't take images of {size}x{size} "
            f"in addition to {height}x{width}: {error} Take views of another "
            "size, or of one size only, or a ResNet."
        ) from error
    return keras.Model(images, features, name=encoder.name)


def patch_size(encoder: keras.Model) -> int:
    """Returns what the size of images must be a multiple of.

    Args:
        encoder: `keras.Model` from images to features.

    Returns:
        An int: the size of the patches of KerasHub's ViTs, DeiTs, DINOv2s and
        DINOv3s, and 1 for other encoders.
    """
    for layer in flat_layers(encoder):
        if hub_name(layer) == "DINOV3Embedding":
            return layer.patch_size
        if hub_name(layer) in EMBEDDINGS:
            return math.lcm(*parts_of(layer).patches.kernel_size)
    return 1


def _accepts(model: Any, args: tuple) -> bool:
    """Returns whether a model takes inputs of that shape."""
    (given,) = keras.tree.flatten(args)
    return all(
        own in (None, size)
        for own, size in zip(model.inputs[0].shape, given.shape)
    )


def _takes_any_size(model: Any) -> bool:
    """Returns whether a model isn't tied to one size but by its input.

    Of KerasHub's own layers only some are known.
    """
    return all(
        hub_name(layer) in (None, *KNOWN) for layer in flat_layers(model)
    )


def takes_the_first(layer: Any) -> bool:
    """Returns whether a layer keeps only the first token, as encoders do.

    Args:
        layer: a layer of an encoder.
    """
    return (
        isinstance(layer, layers.Cropping1D)
        and layer.cropping[0] == 0
        and layer.output.shape[1] == 1
    )
