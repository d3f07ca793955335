"""Converts PyTorch checkpoints to presets."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerassl.choices import check_choice
from kerassl.encoders.assembly import pooled
from kerassl.encoders.normalization import IMAGENET_MEAN, standardization
from kerassl.presets.checkpoints import (
    SOURCES,
    VITS,
)
from kerassl.presets.format.architecture import check_order
from kerassl.presets.format.backbones import Backbone
from kerassl.presets.format.info import check
from kerassl.presets.format.kinds import BACKBONES
from kerassl.presets.format.verify import file_entry
from kerassl.presets.save import save_preset
from kerassl.presets.state_dict import Checkpoint
from kerassl.reading import shown


def convert_checkpoint(
    path: str | Path,
    source: str,
    folder: str | Path,
    *,
    name: str | None = None,
    num_heads: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    license: str | None = None,
    datasets: str | Sequence[str] = (),
    overwrite: bool = False,
) -> Path:
    """Converts a PyTorch checkpoint to a preset.

    No code from the file is run. The encoder becomes a stock KerasHub backbone
    that normalizes its images as the original does. Its features are the
    average of the last map, or the class token. The architecture follows from
    the shapes of the weights. The file must contain every weight of the
    encoder, and nothing else except the heads, queues, second networks and
    decoders that the source is known to have.

    Most sources are the checkpoints of one paper's authors. Others are layouts,
    such as `"timm_vit"`, `"torchvision_resnet"` or `"lightly_resnet"`, of any
    ViT or ResNet of that kind. What isn't in the file has then to be given:
    `name`, `license`, `mean` and `std`.

    Args:
        path: path of a `.pth`, `.pth.tar` or `.bin` file, which needs PyTorch,
            or of a `.safetensors` file, which needs safetensors. Any Keras
            backend will do.
        source: str, a name of `kerassl.presets.convert.SOURCES`, such as
            `"moco_v2_resnet50"` or `"dino_vit"`.
        folder: path of the preset to create.
        name: str, as in `kerassl.save_preset`.
        num_heads: int, the number of heads of a ViT, which its weights don't
            reveal. By default that of the official ViT of this width.
        mean: the mean of each channel in training, for pixels in [0, 1]; only
            for a layout.
        std: the standard deviation likewise.
        license: str, of the weights, as the Hub spells it; only for a layout.
        datasets: as in `kerassl.save_preset`; only for a layout.
        overwrite: bool, as in `kerassl.save_preset`.

    Returns:
        The folder's path.

    Raises:
        FileExistsError: as `kerassl.save_preset`.
        FileNotFoundError: if there is no such file.
        ImportError: if the package that reads such files isn't installed.
        PresetError: if the file isn't such a checkpoint; names the keys, and
            says what was found and what is needed; or if something is missing
            that a layout needs. Nothing is written then.
        ValueError: if there is no such source; names the nearest ones.

    Example:
    ```python
    kerassl.convert_checkpoint(
        "moco_v2_800ep_pretrain.pth.tar", "moco_v2_resnet50", "presets/moco"
    )
    encoder = kerassl.load_encoder("presets/moco")
    ```
    """
    check_choice("source", source, SOURCES)
    path, known = Path(path), SOURCES[source]
    _check_stated(
        source,
        dict(name=name, license=license, mean=mean, std=std),
        bool(datasets),
    )
    checkpoint = Checkpoint(path, source)
    if known.names.class_name == "ResNetBackbone":
        check(num_heads is None, f"{source} has no heads: leave `num_heads`.")
        arguments = _resnet(checkpoint)
        convolutions = 3 if "bottleneck" in arguments["block_type"] else 2
        depth = 2 + convolutions * sum(arguments["stackwise_num_blocks"])
        architecture, image_shape = f"resnet_{depth}", (224, 224, 3)
    else:
        is_dinov2 = known.names.class_name == "DINOV2Backbone"
        arguments = (_dinov2 if is_dinov2 else _vit)(checkpoint, num_heads)
        architecture = VITS.get(arguments["hidden_dim"], "vit")
        if is_dinov2:
            architecture = architecture.replace("vit", "dinov2")
        image_shape = tuple(arguments["image_shape"])
    backbone = _backbone(known.names.class_name, arguments)
    arrays = checkpoint.arrays(backbone.layout(image_shape).weights)
    normalization = standardization(
        3,
        IMAGENET_MEAN if mean is None else mean,
        known.std if std is None else std,
    )
    encoder = _encoder(
        architecture, backbone, image_shape, normalization, arrays
    )
    original = {
        "original file": path.name,
        "original sha256": file_entry(path)["sha256"],
    }
    if known.stated:
        return save_preset(
            encoder,
            folder,
            name=name,
            license=license,
            datasets=datasets,
            description=f"Converted from {path.name}, a checkpoint in the "
            f"layout of {known.title}. License, mean and deviation are by the "
            "word of whoever converted it.",
            training=original,
            overwrite=overwrite,
        )
    return save_preset(
        encoder,
        folder,
        name=name,
        license=known.license,
        datasets=[known.dataset] if known.dataset else [],
        description=f"The encoder of [{known.title}]({known.paper}), converted "
        f"from {path.name}. By the word of whoever converted it, this is a "
        f"checkpoint of the authors ({known.url}). The license is theirs.",
        training={
            "method": known.title,
            "paper": known.paper,
            "original": known.url,
            **original,
        },
        overwrite=overwrite,
    )


def _check_stated(
    source: str, given: dict[str, Any], has_datasets: bool
) -> None:
    """Checks that what a file doesn't say is given, and nothing else."""
    if SOURCES[source].stated:
        missing = [name for name, value in given.items() if value is None]
        check(
            not missing,
            f"{source} is a layout, and a file doesn't say what it was trained "
            f"with. Give {', '.join(missing)}.",
        )
        for name in ("mean", "std"):
            check(
                len(given[name]) == 3 and all(0 < x < 1 for x in given[name]),
                f"`{name}` needs 3 numbers in (0, 1), for pixels in [0, 1]. "
                f"Received: {shown(given[name])}",
            )
        return
    extra = [
        name
        for name, value in given.items()
        if value is not None and name != "name"
    ]
    extra += ["datasets"] if has_datasets else []
    check(
        not extra,
        f"Of {source} the license, the data and the normalization are known: "
        f"leave out {', '.join(extra)}.",
    )


def _resnet(checkpoint: Checkpoint) -> dict[str, Any]:
    """Returns the arguments of the `ResNetBackbone` that fits."""
    first = checkpoint.source.names.shift
    blocks = [(stage - first, block) for stage, block in checkpoint.blocks()]
    stages = range(1 + max((stage for stage, _ in blocks), default=-1))
    outputs, _, kernel, _ = checkpoint.shape("conv1_conv/kernel", 4)
    check(
        kernel == 7,
        f"{checkpoint.path} holds a ResNet for small images: its first kernel "
        f"is {kernel}x{kernel}, and a ResNetBackbone of KerasHub has 7x7.",
    )
    is_basic = (
        checkpoint.key("stack0_block0_3_conv/kernel") not in checkpoint.state
    )
    return {
        "input_conv_filters": [outputs],
        "input_conv_kernel_sizes": [kernel],
        "stackwise_num_filters": [
            checkpoint.shape(f"stack{stage}_block0_1_conv/kernel", 4)[0]
            for stage in stages
        ],
        "stackwise_num_blocks": [
            1 + max((b for s, b in blocks if s == stage), default=-1)
            for stage in stages
        ],
        "stackwise_num_strides": [1 + (stage > 0) for stage in stages],
        "block_type": "basic_block" if is_basic else "bottleneck_block",
        "use_pre_activation": False,
        "image_shape": [None, None, 3],
    }


def _vit(checkpoint: Checkpoint, num_heads: int | None) -> dict[str, Any]:
    """Returns the arguments of the `ViTBackbone` that fits."""
    width, _, *patch = checkpoint.shape("patch_embedding/kernel", 4)
    side = _side(checkpoint, "position_embedding/embeddings")
    return {
        "image_shape": [side * patch[0], side * patch[1], 3],
        "patch_size": patch,
        "num_layers": 1 + max((n for (n,) in checkpoint.blocks()), default=-1),
        "num_heads": _heads(checkpoint, width, num_heads),
        "hidden_dim": width,
        "mlp_dim": checkpoint.shape("block_1/dense_1/kernel", 2)[0],
        "dropout_rate": 0.0,
        "attention_dropout": 0.0,
        "layer_norm_epsilon": checkpoint.source.epsilon,
        "use_mha_bias": True,
        "use_mlp_bias": True,
        "use_class_token": True,
        "use_patch_bias": True,
    }


def _dinov2(checkpoint: Checkpoint, num_heads: int | None) -> dict[str, Any]:
    """Returns the arguments of the `DINOV2Backbone` that fits."""
    kernel = "patch_embeddings/projection/kernel"
    width, _, patch, _ = checkpoint.shape(kernel, 4)
    size = patch * _side(checkpoint, "position_embeddings")
    state, key = checkpoint.state, checkpoint.key
    registers = 0
    if key("register_tokens") in state:
        registers = checkpoint.shape("register_tokens", 3)[1]
    has_gates = key("layers_0/mlp/weights_in/kernel") in state
    first = "layers_0/mlp/fc1/kernel"
    return {
        "patch_size": patch,
        "num_layers": 1 + max((n for (n,) in checkpoint.blocks()), default=-1),
        "hidden_dim": width,
        "num_heads": _heads(checkpoint, width, num_heads),
        # The gated layers are 2/3 as wide.
        "intermediate_dim": 4 * width
        if has_gates
        else checkpoint.shape(first, 2)[0],
        "layer_scale_init_value": 1.0,
        "num_register_tokens": registers,
        "use_mask_token": key("mask_token") in state,
        "use_swiglu_ffn": has_gates,
        "dropout_rate": 0.0,
        "drop_path_rate": 0.0,
        "image_shape": [size, size, 3],
        "position_embedding_shape": [size, size, 3],
        # So are the positions of models with registers interpolated.
        "antialias_in_interpolation": registers > 0,
        "apply_layernorm": False,
    }


def _side(checkpoint: Checkpoint, positions: str) -> int:
    """Returns the number of patches in a row."""
    tokens = checkpoint.shape(positions, 3)[1]
    side = math.isqrt(max(tokens - 1, 0))
    check(
        side > 0 and side * side == tokens - 1,
        f"{checkpoint.path}: {checkpoint.key(positions)!r} must have a class "
        f"token and a square of patches. Found: {tokens} positions.",
    )
    return side


def _heads(checkpoint: Checkpoint, width: int, num_heads: int | None) -> int:
    """Returns the number of heads, which no shape reveals."""
    heads = num_heads or checkpoint.source.heads.get(width)
    check(
        heads,
        f"{checkpoint.path} holds a ViT of width {width}, and weights don't "
        "reveal the number of heads. The official ones have the widths "
        f"{sorted(checkpoint.source.heads)}; for others, give `num_heads`.",
    )
    return heads  # type: ignore[return-value]


def _backbone(class_name: str, arguments: dict[str, Any]) -> Backbone:
    return BACKBONES[class_name](
        {
            "module": "keras_hub.models",
            "class_name": class_name,
            "registered_name": f"keras_hub>{class_name}",
            "config": {
                **arguments,
                "name": "backbone",
                "trainable": True,
                "dtype": "float32",
            },
        }
    )


def _encoder(
    name: str,
    backbone: Backbone,
    image_shape: tuple[int, ...],
    normalization: keras.layers.Layer,
    arrays: list[np.ndarray],
) -> keras.Model:
    images = keras.Input(image_shape, name="images")
    x = normalization(images)
    is_vit = backbone.class_name != "ResNetBackbone"
    features = pooled(backbone.apply(x), class_token=is_vit)
    encoder = keras.Model(images, features, name=name)
    check_order(encoder, backbone.layout(image_shape).weights)
    encoder.set_weights(arrays)
    return encoder
