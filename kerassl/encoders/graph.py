"""Graphs of encoders: calling their layers again, and finding a ViT in one."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import keras
from keras import layers

from kerassl.encoders.kerashub import DINOS, hub_name
from kerassl.image_format import flat_layers
from kerassl.layers import TokensAtSize
from kerassl.networks import is_graph, replay

# Layers that keep the number and the order of tokens.
SAME_TOKENS = (
    layers.Activation,
    layers.Dense,
    layers.Dropout,
    layers.Identity,
    layers.LayerNormalization,
)
# KerasHub's, which do so too; the RoPE layer makes no tokens, and is passed
# over.
ENCODERS_OF_TOKENS = (
    "DeiTEncoder",
    "DINOV2Encoder",
    "DINOV3Encoder",
    "DINOV3RopePositionEmbedding",
    "ViTEncoder",
)
# How many tokens of a KerasHub model come before those of the patches: the
# class token first, then register or distillation tokens.
FIRST_TOKENS: dict[str, Callable[[Any], int]] = {
    "CLIPVisionEncoder": lambda model: 1,
    "DeiTBackbone": lambda model: 2,
    "DINOV2Backbone": lambda model: 1 + model.num_register_tokens,
    "DINOV3Backbone": lambda model: 1 + model.num_register_tokens,
    "DINOV3Embedding": lambda model: 1 + model.num_register_tokens,
    "SwinTransformerBackbone": lambda model: 0,
    "ViTBackbone": lambda model: int(model.use_class_token),
}


def part_before(model: keras.Model, layer: keras.layers.Layer) -> keras.Model:
    """Returns the part of a model that feeds one of its layers.

    Args:
        model: Functional or Sequential `keras.Model` from images.
        layer: a layer of it, or of an inner model.

    Returns:
        A `keras.Model` that shares all layers.
    """
    images = keras.Input(model.input_shape[1:], name="images")
    fed = []

    def call(called: Any, *args: Any, **kwargs: Any) -> Any:
        if called is layer:
            fed.append(args[0])
        elif is_graph(called) and not fed:
            return replay(called, args, call)
        return called(*args, **kwargs)

    replay(model, images, call)
    return keras.Model(images, fed[0], name="preprocessor")


class ViT(NamedTuple):
    """A KerasHub ViT or DeiT in an encoder.

    Attributes:
        backbone: the model that these layers belong to.
        embedding: layer from pixels to tokens.
        encoder: layer from tokens to tokens, which holds the blocks.
    """

    backbone: Any
    embedding: keras.layers.Layer
    encoder: Any

    @property
    def blocks(self) -> list[Any]:
        """The transformer blocks, from first to last."""
        return self.encoder.encoder_layers

    @property
    def grid(self) -> tuple[int, int]:
        """The rows and columns of patches of a `ViTBackbone`."""
        height, width = self.backbone.image_shape[:2]
        rows, columns = self.backbone.patch_size
        return height // rows, width // columns


def find_vit(encoder: Any) -> ViT | None:
    """Returns the first KerasHub ViT or DeiT in an encoder, or `None`.

    Args:
        encoder: `keras.Model`. Inner models are searched too.
    """
    parts = getattr(encoder, "layers", [])
    for before, layer in pairwise(parts):
        if hub_name(layer) in ("ViTEncoder", "DeiTEncoder"):
            return ViT(encoder, before, layer)
    inner = (find_vit(layer) for layer in parts)
    return next((vit for vit in inner if vit), None)


def find_vit_backbone(encoder: keras.Model) -> ViT | None:
    """Returns the first `keras_hub.models.ViTBackbone` in an encoder.

    As `find_vit`, but a DeiT, or a ViT's layers in another model, don't count.
    """
    vit = find_vit(encoder)
    return vit if vit and hub_name(vit.backbone) == "ViTBackbone" else None


def vit_layers(encoder: keras.Model) -> list[str]:
    """Returns the names of a ViT's embedding and blocks, from first to last.

    Args:
        encoder: `keras.Model`.

    Returns:
        A list of layer names, empty if the encoder holds no ViT, DeiT or DINO
        of KerasHub.
    """
    if vit := find_vit(encoder):
        return [x.name for x in (vit.embedding, *vit.blocks)]
    for layer in flat_layers(encoder, whole=hub_name):
        if hub_name(layer) in DINOS:
            parts = (layer.embeddings, *layer.encoder.layers)
            return [x.name for x in parts]
    return []


def first_tokens(model: Any) -> int | None:
    """Returns how many tokens come before those of the patches.

    If there are any, the first of them is the class token.

    Args:
        model: a layer or model that returns tokens `(N, T, D)`.

    Returns:
        An int, or `None` if nothing is known about the tokens.

    Raises:
        ValueError: if it is a KerasHub model whose tokens are not known.
    """
    name = hub_name(model)
    if name in FIRST_TOKENS:
        return FIRST_TOKENS[name](model)
    if isinstance(model, TokensAtSize):
        return model.first_tokens
    if hasattr(model, "use_class_token"):
        return int(model.use_class_token)
    if name is not None:
        raise ValueError(
            f"{model.name!r} returns the tokens of KerasHub's {name}, and "
            "which of them are the image's features isn't known. Make a model "
            "that returns features (N, D), such as `keras.Model(model.input, "
            "model.output[:, 0])` for the first token."
        )
    inner = list(flat_layers(model, whole=hub_name))
    return None if inner == [model] else first_tokens_after(inner)


def first_tokens_after(called: Sequence[Any]) -> int | None:
    """Returns `first_tokens` of what layers return one after another.

    Args:
        called: the layers, from first to last.
    """
    for layer in reversed(called):
        if hub_name(layer) in ENCODERS_OF_TOKENS:
            continue
        if not isinstance(layer, SAME_TOKENS):
            return first_tokens(layer)
    return None


def has_class_token(layer: Any) -> bool:
    """Returns whether a layer or model is known to return a class token."""
    known = hub_name(layer) in FIRST_TOKENS or hasattr(layer, "use_class_token")
    return known and bool(first_tokens(layer))
