"""Stock KerasHub backbones, loaded on use."""

import math
from typing import Any

import keras
from keras import ops

# Tiny, small and base are the sizes of DeiT and ViT; nano is ours, for CPUs.
VITS = {
    "vit_nano": dict(hidden_dim=96, num_layers=6, num_heads=3),
    "vit_tiny": dict(hidden_dim=192, num_layers=12, num_heads=3),
    "vit_small": dict(hidden_dim=384, num_layers=12, num_heads=6),
    "vit_base": dict(hidden_dim=768, num_layers=12, num_heads=12),
}
DINOV2S = {
    "dinov2_small": dict(hidden_dim=384, num_layers=12, num_heads=6),
    "dinov2_base": dict(hidden_dim=768, num_layers=12, num_heads=12),
}
RESNETS = {
    "resnet_18": ("basic_block", (2, 2, 2, 2)),
    "resnet_50": ("bottleneck_block", (3, 4, 6, 3)),
}


# Their blocks are `backbone.encoder.layers`.
DINOS = ("DINOV2Backbone", "DINOV3Backbone")
# Classes all of whose presets were trained with ImageNet's mean and deviation.
# Image converters have their values from a preset, and a backbone doesn't know
# its own. DINOv3 isn't here: its satellite presets have others.
OF_IMAGENET = ("DINOV2Backbone",)


def hub_name(thing: Any) -> str | None:
    """Returns the name of an object's KerasHub class, or `None`.

    Only classes of KerasHub's models and image converters count, not building
    blocks such as `keras_hub.layers.TransformerEncoder`. For a user's subclass,
    the name is that of the KerasHub base class.
    """
    for kind in type(thing).__mro__:
        if kind.__module__.startswith("keras_hub."):
            known = ".models." in kind.__module__ or kind.__name__.endswith(
                "ImageConverter"
            )
            return kind.__name__ if known else None
    return None


def backbone_and_converter(model: Any) -> tuple[Any, Any]:
    """Returns the backbone and the image converter of a KerasHub task.

    Args:
        model: any object.

    Returns:
        A tuple of the backbone, and the converter or `None`. If `model` is not
        a KerasHub task, the tuple is `(model, None)`.
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
    """Reinitializes convolutions by He's rule, as in the ResNet papers.

    KerasHub's ResNets use Keras's default, whose weights are 0.7 times as large
    where a convolution has as many outputs as inputs.

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
        # About 64 patches for small images; 16 px, as in the papers, for large.
        patch_size = 4 if height <= 48 else 8 if height <= 112 else 16
    if height % patch_size or width % patch_size:
        raise ValueError(
            f"Images of {height}x{width} can't be split into patches of "
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


def dinov2_backbone(name: str, image_shape: tuple[int, int, int]) -> Any:
    """Returns an untrained `keras_hub.models.DINOV2Backbone`."""
    import keras_hub

    height, width = image_shape[:2]
    if height != width or height % 14:
        raise ValueError(
            f"{name} takes square images of a multiple of its patches of 14 "
            f"px, such as 28, 56 or 224. Received: {height}x{width}"
        )
    size = DINOV2S[name]
    return keras_hub.models.DINOV2Backbone(
        image_shape=image_shape,
        position_embedding_shape=image_shape,
        patch_size=14,
        intermediate_dim=4 * size["hidden_dim"],
        # The authors start training so. Released weights have their own.
        layer_scale_init_value=1e-5,
        use_mask_token=False,
        data_format="channels_last",
        name="backbone",
        **size,
    )


def linear_xavier(model: keras.layers.Layer) -> None:
    """Reinitializes a transformer's kernels as those of dense layers.

    Xavier's bound depends on the numbers of inputs and outputs. Keras treats
    the heads of an attention kernel, and the pixels of a patch embedding
    kernel, like the window of a convolution, which makes weights several times
    smaller than in the papers (MoCo v3, MAE). Kernels of rank 2 are unchanged.

    Args:
        model: a built model or layer.
    """
    xavier = keras.initializers.GlorotUniform
    for weight in model.weights:
        shape = tuple(weight.shape)
        if weight.name != "kernel" or len(shape) < 3:
            continue
        # Queries, keys and values have kernels (D, heads, D / heads). Others
        # have one output axis: from heads, or from the pixels of a patch.
        into_heads = weight.path.split("/")[-2] in ("query", "key", "value")
        inputs = math.prod(shape[:1] if into_heads else shape[:-1])
        matrix = xavier()((inputs, math.prod(shape) // inputs))
        weight.assign(ops.reshape(matrix, shape))


def restart_backbones(encoder: keras.Model) -> None:
    """Gives an encoder's backbones the random weights that `build` starts with.

    A model made from a config starts with KerasHub's instead.

    Args:
        encoder: `keras.Model`, changed in place. Layers other than KerasHub's
            `ViTBackbone` and `ResNetBackbone` keep their weights.
    """
    for layer in encoder.layers:
        kind = hub_name(layer)
        if kind == "ViTBackbone":
            linear_xavier(layer)
        elif kind == "ResNetBackbone":
            he_normal(layer)
