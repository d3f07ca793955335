"""Stock KerasHub backbones, loaded on use."""

import math
import re
import sys
from collections.abc import Callable
from typing import Any

import keras
from keras import layers, ops

from kerassl.image_format import flat_layers

# Widths, depths and heads of the ViTs: tiny, small and base are DeiT's and
# ViT's; nano is ours, for CPUs.
VITS = {
    "vit_nano": dict(hidden_dim=96, num_layers=6, num_heads=3),
    "vit_tiny": dict(hidden_dim=192, num_layers=12, num_heads=3),
    "vit_small": dict(hidden_dim=384, num_layers=12, num_heads=6),
    "vit_base": dict(hidden_dim=768, num_layers=12, num_heads=12),
}
RESNETS = {
    "resnet_18": ("basic_block", (2, 2, 2, 2)),
    "resnet_50": ("bottleneck_block", (3, 4, 6, 3)),
}
# Layers after which there are the same tokens in the same order.
SAME_TOKENS = (
    layers.Activation,
    layers.Dense,
    layers.Dropout,
    layers.Identity,
    layers.LayerNormalization,
)
# Of those that return tokens: how many come before the patches'. The first of
# them is the class token, then come register or distillation tokens.
FIRST_TOKENS: dict[str, Callable[[Any], int]] = {
    "CLIPVisionEncoder": lambda model: 1,
    "DeiTBackbone": lambda model: 2,
    "DINOV2Backbone": lambda model: 1 + model.num_register_tokens,
    "DINOV3Backbone": lambda model: 1 + model.num_register_tokens,
    "SwinTransformerBackbone": lambda model: 0,
    "ViTBackbone": lambda model: int(model.use_class_token),
}


def hub_name(thing: Any) -> str | None:
    """Returns the name of KerasHub's class that something is of, or `None`.

    A subclass has the name of KerasHub's own. The building blocks for anybody's
    models, `keras_hub.layers.TransformerEncoder` and such, have none.
    """
    for kind in type(thing).__mro__:
        if kind.__module__.startswith("keras_hub."):
            known = ".models." in kind.__module__ or kind.__name__.endswith(
                "ImageConverter"
            )
            return kind.__name__ if known else None
    return None


def first_tokens(model: Any) -> int:
    """Returns how many tokens come before those of the patches.

    The features of a model with any are its class token, the first, which is
    what the authors of DeiT, DINO, DINOv2 and DINOv3 evaluate; those of others
    are the mean of all tokens.

    Args:
        model: a layer or model that returns tokens `(N, T, D)`.

    Raises:
        ValueError: if it is one of KerasHub of which that isn't known.
    """
    name = hub_name(model)
    if name in FIRST_TOKENS:
        return FIRST_TOKENS[name](model)
    if name is not None and not hasattr(model, "use_class_token"):
        raise ValueError(
            f"{model.name!r} returns the tokens of KerasHub's {name}, and "
            "which of them are the image's features isn't known. Make a model "
            "that returns features (N, D), such as `keras.Model(model.input, "
            "model.output[:, 0])` for the first token."
        )
    if hasattr(model, "use_class_token"):
        return int(model.use_class_token)
    for layer in reversed(list(flat_layers(model, whole=hub_name))):
        if layer is model:
            return 0
        if not isinstance(layer, SAME_TOKENS):
            return first_tokens(layer)
    return 0


def has_class_token(layer: Any) -> bool:
    """Tells whether a layer or model is known to return a class token."""
    known = hub_name(layer) in FIRST_TOKENS or hasattr(layer, "use_class_token")
    return known and first_tokens(layer) > 0


def backbone_and_converter(model: Any) -> tuple[Any, Any]:
    """Returns a KerasHub task's backbone and image converter.

    Args:
        model: anything.

    Returns:
        A tuple of the backbone and the converter or `None`. Of what is not a
        task it is the model itself and `None`.
    """
    if hub_name(model) is not None:
        import keras_hub

        if isinstance(model, keras_hub.models.Task):
            preprocessor = getattr(model, "preprocessor", None)
            converter = getattr(preprocessor, "image_converter", None)
            return model.backbone, converter
    return model, None


def resnet_backbone(name: str, image_shape: tuple[int | None, ...]) -> Any:
    """Returns an untrained `keras_hub.models.ResNetBackbone`."""
    import keras_hub

    block_type, blocks = RESNETS[name]
    backbone = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 128, 256, 512],
        stackwise_num_blocks=list(blocks),
        stackwise_num_strides=[1, 2, 2, 2],
        block_type=block_type,
        image_shape=image_shape,
        data_format="channels_last",
        name="backbone",
    )
    he_normal(backbone)
    return backbone


def he_normal(model: keras.layers.Layer) -> None:
    """Gives convolutions new weights of He's deviation, as the papers' ResNets.

    KerasHub's ResNets start with Keras's default, 0.7 times as large where a
    convolution has as many outputs as inputs.

    Args:
        model: a built model or layer.
    """
    for weight in model.weights:
        shape = tuple(weight.shape)
        if weight.name == "kernel" and len(shape) == 4:
            weight.assign(keras.initializers.HeNormal()(shape))


def vit_backbone(
    name: str, image_shape: tuple[int, int, int], patch_size: int | None
) -> Any:
    """Returns an untrained `keras_hub.models.ViTBackbone`."""
    import keras_hub

    height, width = image_shape[:2]
    if patch_size is None:
        # About 64 patches for small images, the papers' 16 for large ones.
        patch_size = 4 if height <= 48 else 8 if height <= 112 else 16
    if height % patch_size or width % patch_size:
        raise ValueError(
            f"Images of {height}x{width} can't be cut in patches of "
            f"{patch_size}x{patch_size}. Choose a `patch_size` that divides "
            "both."
        )
    size = VITS[name]
    backbone = keras_hub.models.ViTBackbone(
        image_shape=image_shape,
        patch_size=(patch_size, patch_size),
        mlp_dim=4 * size["hidden_dim"],
        data_format="channels_last",
        name="backbone",
        **size,
    )
    linear_xavier(backbone)
    return backbone


def linear_xavier(model: keras.layers.Layer) -> None:
    """Gives a transformer's kernels new weights, as those of dense layers.

    Xavier's bound depends on the numbers of inputs and outputs. Keras takes
    the heads of an attention's kernel, and the pixels of a patch embedding's,
    for places of a convolution, and makes the weights several times smaller
    than the papers' (MoCo v3, MAE). Other kernels are left alone.

    Args:
        model: a built model or layer.
    """
    xavier = keras.initializers.GlorotUniform
    for weight in model.weights:
        shape = tuple(weight.shape)
        if weight.name != "kernel" or len(shape) < 3:
            continue
        # Into heads, (D, heads, D / heads); else out of heads, or of pixels.
        into_heads = weight.path.split("/")[-2] in ("query", "key", "value")
        inputs = math.prod(shape[:1] if into_heads else shape[:-1])
        matrix = xavier()((inputs, math.prod(shape) // inputs))
        weight.assign(ops.reshape(matrix, shape))


def restart_backbones(encoder: keras.Model) -> None:
    """Gives a new encoder's backbones the weights that `build` starts with.

    What a config is made of again starts with KerasHub's own.

    Args:
        encoder: `keras.Model`, maybe with a `keras_hub.models.ViTBackbone`
            or `ResNetBackbone` among its layers.
    """
    # A model that holds one has imported it.
    if "keras_hub" not in sys.modules:
        return
    import keras_hub

    for layer in encoder.layers:
        if isinstance(layer, keras_hub.models.ViTBackbone):
            linear_xavier(layer)
        elif isinstance(layer, keras_hub.models.ResNetBackbone):
            he_normal(layer)


def vit_layers(encoder: keras.Model) -> list[str]:
    """Returns the names of a KerasHub ViT's embedding and blocks, in order.

    Args:
        encoder: `keras.Model`.

    Returns:
        A list of names of layers, empty if there is no ViT in it.
    """
    parts = dict.fromkeys(
        found[1]
        for weight in encoder.weights
        if (found := re.search(r"([^/]*(embedding|block_\d+))/", weight.path))
    )
    return list(parts) if "transformer_block_1" in parts else []
