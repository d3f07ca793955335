"""Converts official PyTorch checkpoints to presets."""

import math
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerassl.choices import check_choice
from kerassl.encoders.build import pooled
from kerassl.encoders.normalization import IMAGENET_MEAN, standardization
from kerassl.presets.checkpoints import (
    PARTS,
    QKV,
    SOURCES,
    TORCHVISION,
    VARIABLES,
    VITS,
    Source,
)
from kerassl.presets.format.architecture import Weight, check_order
from kerassl.presets.format.backbones import BACKBONES, Backbone
from kerassl.presets.format.info import check
from kerassl.presets.format.verify import file_entry
from kerassl.presets.save import save_preset
from kerassl.presets.tensors import read_tensors, shape_of
from kerassl.reading import shown

MOST_PROBLEMS = 5  # listed in an error
# Heads of classifiers in torchvision, timm and transformers.
CLASSIFIERS = ("head.weight", "fc.weight", "classifier.weight")


def convert_checkpoint(
    path: str | Path,
    source: str,
    folder: str | Path,
    *,
    name: str | None = None,
    num_heads: int | None = None,
    overwrite: bool = False,
) -> Path:
    """Converts an official PyTorch checkpoint to a preset.

    No code from the file is run. The encoder becomes a stock KerasHub backbone
    that normalizes its images as the original does. Its features are the
    average of the last map, or the class token. The architecture follows from
    the shapes of the weights. The file must contain every weight of the
    encoder, and nothing else except the heads, queues, second networks and
    decoders that the source is known to have.

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
        overwrite: bool, as in `kerassl.save_preset`.

    Returns:
        The folder's path.

    Raises:
        FileExistsError: as `kerassl.save_preset`.
        FileNotFoundError: if there is no such file.
        ImportError: if the package that reads such files isn't installed.
        PresetError: if the file isn't such a checkpoint; names the keys, and
            says what was found and what is needed. Nothing is written then.
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
    checkpoint = _Checkpoint(path, source)
    if known.names is TORCHVISION:
        check(num_heads is None, f"{source} has no heads: leave `num_heads`.")
        arguments = _resnet(checkpoint)
        depth = 2 + 3 * sum(arguments["stackwise_num_blocks"])
        architecture, image_shape = f"resnet_{depth}", (224, 224, 3)
    else:
        arguments = _vit(checkpoint, num_heads)
        architecture = VITS.get(arguments["hidden_dim"], "vit")
        image_shape = tuple(arguments["image_shape"])
    backbone = _backbone(known.names.class_name, arguments)
    arrays = checkpoint.arrays(backbone.layout(image_shape).weights)
    encoder = _encoder(architecture, backbone, image_shape, known.std, arrays)
    return save_preset(
        encoder,
        folder,
        name=name,
        license=known.license,
        datasets=[known.dataset],
        description=f"The encoder of [{known.title}]({known.paper}), converted "
        f"from {path.name}. By the word of whoever converted it, this is a "
        f"checkpoint of the authors ({known.url}). The license is theirs.",
        training={
            "method": known.title,
            "paper": known.paper,
            "original": known.url,
            "original file": path.name,
            "original sha256": file_entry(path)["sha256"],
        },
        overwrite=overwrite,
    )


class _Checkpoint:
    """The arrays of a file, by their names in Keras."""

    def __init__(self, path: Path, name: str):
        self.path, self.name = path, name
        self.source: Source = SOURCES[name]
        state = read_tensors(path)
        for key in self.source.keys:
            if isinstance(state, dict) and key in state:
                state = state[key]
                break
        check(
            isinstance(state, dict) and all(isinstance(k, str) for k in state),
            f"{path} holds no dict of names to tensors, as PyTorch saves them.",
        )
        self.state: dict[str, Any] = state
        self._check_bytes()
        anchors = [
            f"{start}{prefix}{self.source.names.anchor}"
            for prefix in self.source.prefixes
            for start in ("module.", "")
        ]
        found = [anchor for anchor in anchors if anchor in state]
        check(
            found,
            f"{path} is not a checkpoint of {name}: it has none of the keys "
            f"{anchors}. Found: {shown(list(state)[:MOST_PROBLEMS])} and so "
            "on.",
        )
        self.prefix = found[0].removesuffix(self.source.names.anchor)
        for key in [
            p + head for p in ("", self.prefix) for head in CLASSIFIERS
        ]:
            check(
                key not in state or self._is_ignored(key),
                f"{path} holds a classifier, {key!r} of shape "
                f"{shape_of(state.get(key))}, so it isn't the encoder that "
                f"{self.source.title} trained, but another or a "
                "fine-tuned one. Its license and normalization are unknown.",
            )

    def _check_bytes(self) -> None:
        """Refuses tensors with more numbers than the file contains.

        Strides of 0 and shared storage can turn a few numbers into gigabytes.
        """
        held = self.path.stat().st_size
        taken = sum(
            value.nbytes
            for key, value in self.state.items()
            if not self._is_ignored(key) and shape_of(value) is not None
        )
        check(
            taken <= held,
            f"{self.path} has {held:,} bytes, and its tensors would be "
            f"{taken:,}: they repeat numbers, which checkpoints of encoders "
            "don't.",
        )

    def blocks(self) -> list[tuple[int, ...]]:
        """Returns the indices of all blocks in PyTorch."""
        pattern = re.compile(re.escape(self.prefix) + self.source.names.blocks)
        found = (pattern.match(key) for key in self.state)
        return [tuple(map(int, match.groups())) for match in found if match]

    def key(self, name: str) -> str:
        """Returns the PyTorch key of a weight in Keras."""
        path, _, variable = name.rpartition("/")
        numbered = r"(stack|block_?)(\d+)"
        numbers = [int(number) for _, number in re.findall(numbered, path)]
        if numbers:
            numbers[0] += self.source.names.shift
        layer = re.sub(numbered, r"\1*", path).rpartition("/")[-1]
        found = self.source.names.layers[layer].format(*numbers)
        return self.prefix + found + VARIABLES[variable]

    def shape(self, name: str, rank: int) -> tuple[int, ...]:
        """Returns the PyTorch shape of a weight in Keras."""
        key = self.key(name)
        shape = shape_of(self.state.get(key))
        check(
            shape is not None and len(shape) == rank,
            f"{self.path} is not a checkpoint of {self.name}: {key!r} must be "
            f"a tensor of rank {rank}. Found: {shape}",
        )
        return shape  # type: ignore[return-value]

    def arrays(self, weights: list[Weight]) -> list[np.ndarray]:
        """Returns the arrays for Keras's weights, after checking all keys."""
        needed = {
            self.key(w.name): _needed(w, QKV in self.key(w.name))
            for w in weights
        }
        problems = []
        for key, shape in needed.items():
            found = shape_of(self.state.get(key))
            if key not in self.state:
                problems.append(f"{key!r} of shape {shape} is missing")
            elif found != shape:
                problems.append(f"{key!r} has shape {found} instead of {shape}")
        for key, value in self.state.items():
            if key not in needed and not self._is_ignored(key):
                found = shape_of(value)
                problems.append(f"{key!r} of shape {found} is unexpected")
        check(
            not problems,
            f"{self.path} is not a checkpoint of {self.name} that a "
            f"{self.source.names.class_name} can hold, {len(problems)} keys "
            f"are wrong: {'; '.join(problems[:MOST_PROBLEMS])}.",
        )
        return [self._array(weight) for weight in weights]

    def _is_ignored(self, key: str) -> bool:
        key = key.removeprefix("module.")
        return key.endswith(".num_batches_tracked") or key.startswith(
            self.source.ignored
        )

    def _array(self, weight: Weight) -> np.ndarray:
        key = self.key(weight.name)
        value = self.state[key]
        if not isinstance(value, np.ndarray):
            value = value.detach().float().numpy()
        if QKV in key:
            part = PARTS.index(weight.name.split("/")[-2])
            value = np.split(value, 3)[part]
        if weight.name.endswith("/kernel"):
            value = value.transpose((2, 3, 1, 0) if value.ndim == 4 else (1, 0))
        return value.reshape(weight.shape).astype("float32")


def _needed(weight: Weight, fused: bool) -> tuple[int, ...]:
    """Returns a weight's shape in PyTorch, with outputs first."""
    shape, size = weight.shape, math.prod(weight.shape)
    variable = weight.name.rpartition("/")[-1]
    if variable == "class_token":
        return shape
    if variable == "embeddings":
        return (1, *shape)
    parts = 3 if fused else 1
    if variable != "kernel":
        return (parts * size,)
    if len(shape) == 4:
        height, width, inputs, outputs = shape
        return (outputs, inputs, height, width)
    # Queries, keys and values map to heads, the attention output from heads.
    inputs = (
        size // shape[-1] if "attention_output" in weight.name else shape[0]
    )
    return (parts * (size // inputs), inputs)


def _resnet(checkpoint: _Checkpoint) -> dict[str, Any]:
    """Returns the arguments of the `ResNetBackbone` that fits."""
    blocks = checkpoint.blocks()
    stages = range(max((stage for stage, _ in blocks), default=0))
    outputs, _, kernel, _ = checkpoint.shape("conv1_conv/kernel", 4)
    return {
        "input_conv_filters": [outputs],
        "input_conv_kernel_sizes": [kernel],
        "stackwise_num_filters": [
            checkpoint.shape(f"stack{stage}_block0_1_conv/kernel", 4)[0]
            for stage in stages
        ],
        "stackwise_num_blocks": [
            1 + max((b for s, b in blocks if s == stage + 1), default=-1)
            for stage in stages
        ],
        "stackwise_num_strides": [1 + (stage > 0) for stage in stages],
        "block_type": "bottleneck_block",
        "use_pre_activation": False,
        "image_shape": [None, None, 3],
    }


def _vit(checkpoint: _Checkpoint, num_heads: int | None) -> dict[str, Any]:
    """Returns the arguments of the `ViTBackbone` that fits."""
    width, _, *patch = checkpoint.shape("patch_embedding/kernel", 4)
    positions = "position_embedding/embeddings"
    tokens = checkpoint.shape(positions, 3)[1]
    side = math.isqrt(max(tokens - 1, 0))
    check(
        side > 0 and side * side == tokens - 1,
        f"{checkpoint.path}: {checkpoint.key(positions)!r} must have a class "
        f"token and a square of patches. Found: {tokens} positions.",
    )
    heads = num_heads or checkpoint.source.heads.get(width)
    check(
        heads,
        f"{checkpoint.path} holds a ViT of width {width}, and weights don't "
        "reveal the number of heads. The official ones have the widths "
        f"{sorted(checkpoint.source.heads)}; for others, give `num_heads`.",
    )
    return {
        "image_shape": [side * patch[0], side * patch[1], 3],
        "patch_size": patch,
        "num_layers": 1 + max((n for (n,) in checkpoint.blocks()), default=-1),
        "num_heads": heads,
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
    std: tuple[float, ...],
    arrays: list[np.ndarray],
) -> keras.Model:
    images = keras.Input(image_shape, name="images")
    x = standardization(3, IMAGENET_MEAN, std)(images)
    is_vit = backbone.class_name == "ViTBackbone"
    features = pooled(backbone.apply(x), class_token=is_vit)
    encoder = keras.Model(images, features, name=name)
    check_order(encoder, backbone.layout(image_shape).weights)
    encoder.set_weights(arrays)
    return encoder
