"""Stock KerasHub backbones, loaded on use."""

import math
import re
import sys
from typing import Any

import keras
from keras import ops

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
