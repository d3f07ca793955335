"""KerasHub backbones, checked before they are built.

A backbone is created by its class, from checked arguments; nothing else in
`config.json` is used. The shapes of its weights are computed without KerasHub,
before any is created.
"""

from typing import Any

import keras
import numpy as np

from kerassl.layers.positions import bicubic_matrix, resized_positions
from kerassl.presets.format.architecture import (
    Architecture,
    Layout,
    Weight,
    is_float32,
    object_config,
)
from kerassl.presets.format.info import CONFIG, PresetError, check, is_shape
from kerassl.presets.format.positions import Matrix
from kerassl.reading import is_int, is_number, shown

MOST_UNITS = 8192
MOST_BLOCKS = 256


class Backbone(Architecture):
    """A KerasHub backbone, checked but not built.

    Args:
        config: the content of `config.json`.

    Raises:
        PresetError: if it isn't this class with arguments within bounds.
    """

    # The arguments that `config.json` must have. Others are refused.
    names: tuple[str, ...]

    def __init__(self, config: Any):
        fields = object_config(
            config,
            self.class_name,
            "keras_hub",
            f"keras_hub>{self.class_name}",
        )
        expected = {*self.names, "name", "trainable", "dtype"}
        check(
            set(fields) == expected,
            f"{CONFIG}: {self.class_name} must have the arguments "
            f"{sorted(expected)}. Found: {shown(sorted(fields))}",
        )
        check(
            is_float32(fields["dtype"]),
            f"{CONFIG}: the dtype must be float32. Found: "
            f"{shown(fields['dtype'])}",
        )
        self.arguments = {name: fields[name] for name in self.names}
        for name, value in self.arguments.items():
            check(
                self.is_argument(name, value),
                f"{CONFIG}: {self.class_name} has {name}={shown(value)}, "
                "which a preset can't have.",
            )
        self.image_shape = tuple(self.arguments["image_shape"])
        self.check()

    def is_argument(self, name: str, value: Any) -> bool:
        """Whether an argument may have a value."""
        raise NotImplementedError

    def check(self) -> None:
        """Refuses arguments that contradict each other."""

    def model(self) -> keras.Model:
        """Returns the published model, with initial weights."""
        return self._model(self.image_shape)

    def apply(self, images: Any) -> Any:
        """Creates the backbone for images and calls it on them."""
        return self._model(self.shape_for(images.shape[1:]))(images)

    def shape_for(
        self, image_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        """Returns the backbone's `image_shape` for images of a shape."""
        return image_shape

    def arguments_for(
        self, image_shape: tuple[int | None, ...]
    ) -> dict[str, Any]:
        """Returns the backbone's arguments for images of a shape."""
        return {**self.arguments, "image_shape": image_shape}

    def settled(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        """Returns a model's weights as a preset holds them."""
        return arrays

    def _model(self, image_shape: tuple[int | None, ...]) -> keras.Model:
        import keras_hub

        return getattr(keras_hub.models, self.class_name)(
            **self.arguments_for(image_shape),
            data_format="channels_last",
            dtype="float32",
            name="backbone",
        )


class ResNet(Backbone):
    """`keras_hub.models.ResNetBackbone`, version 1."""

    class_name = "ResNetBackbone"
    names = (
        "input_conv_filters",
        "input_conv_kernel_sizes",
        "stackwise_num_filters",
        "stackwise_num_blocks",
        "stackwise_num_strides",
        "block_type",
        "use_pre_activation",
        "image_shape",
    )

    def is_argument(self, name: str, value: Any) -> bool:
        """Whether an argument may have a value."""
        if name == "block_type":
            return value in ("basic_block", "bottleneck_block")
        if name == "use_pre_activation":
            return value is False
        if name == "image_shape":
            return is_shape(value, open_size=True)
        largest, longest = MOST_UNITS, 16
        if name.startswith("input_conv"):
            longest = 1
        if name.endswith("blocks"):
            largest = MOST_BLOCKS
        if name.endswith(("strides", "kernel_sizes")):
            largest = 16
        return (
            isinstance(value, list)
            and 1 <= len(value) <= longest
            and all(is_int(v, 1, largest) for v in value)
        )

    def check(self) -> None:
        """Refuses arguments that contradict each other."""
        lengths = {
            len(value)
            for name, value in self.arguments.items()
            if name.startswith("stackwise")
        }
        check(
            len(lengths) == 1,
            f"{CONFIG}: ResNetBackbone's stackwise arguments differ in length: "
            f"{shown(self.arguments)}",
        )
        widths = self.arguments["stackwise_num_filters"]
        check(
            widths[0] == 64
            and (
                self.arguments["block_type"] != "basic_block"
                or self.arguments["input_conv_filters"] == [64]
            ),
            f"{CONFIG}: ResNetBackbone must start with 64 filters. Found: "
            f"{shown(self.arguments)}",
        )

    def shape_for(
        self, image_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        """Returns a shape of open size, which multi-crop needs."""
        return (None, None, image_shape[-1])

    def layout(self, image_shape: tuple[int | None, ...]) -> Layout:
        """Returns the weights for images of a shape, without creating them."""
        found: list[Weight] = []
        counts = {"conv2d": 0, "batch_normalization": 0}

        def add(kind: str, name: str, *shapes: tuple[str, tuple]) -> None:
            number = f"_{counts[kind]}" if counts[kind] else ""
            counts[kind] += 1
            found.extend(
                Weight(f"layers/{kind}{number}/vars/{i}", f"{name}/{key}", size)
                for i, (key, size) in enumerate(shapes)
            )

        def conv(name: str, kernel: int, inputs: int, units: int) -> None:
            shape = (kernel, kernel, inputs, units)
            add("conv2d", f"{name}_conv", ("kernel", shape))

        def norm(name: str, units: int) -> None:
            keys = ("gamma", "beta", "moving_mean", "moving_variance")
            shapes = [(key, (units,)) for key in keys]
            add("batch_normalization", f"{name}_bn", *shapes)

        given = self.arguments
        width = given["input_conv_filters"][0]
        kernel = given["input_conv_kernel_sizes"][0]
        conv("conv1", kernel, image_shape[-1] or 0, width)
        norm("conv1", width)
        bottleneck = given["block_type"] == "bottleneck_block"
        for stack, (units, blocks) in enumerate(
            zip(given["stackwise_num_filters"], given["stackwise_num_blocks"])
        ):
            outputs = 4 * units if bottleneck else units
            for block in range(blocks):
                name = f"stack{stack}_block{block}"
                shortcut = block == 0 and (bottleneck or stack > 0)
                # Keras orders weights by their distance from the output.
                kernels = (1, 3, 1) if bottleneck else (3, 3)
                inputs = width
                for i, size in enumerate(kernels, start=1):
                    last = i == len(kernels)
                    if last and shortcut:
                        conv(f"{name}_0", 1, width, outputs)
                    conv(
                        f"{name}_{i}", size, inputs, outputs if last else units
                    )
                    if last and shortcut:
                        norm(f"{name}_0", outputs)
                    norm(f"{name}_{i}", outputs if last else units)
                    inputs = units
                width = outputs
        return Layout(found, (None, None, None, width))


class ViT(Backbone):
    """`keras_hub.models.ViTBackbone`."""

    class_name = "ViTBackbone"
    names = (
        "image_shape",
        "patch_size",
        "num_layers",
        "num_heads",
        "hidden_dim",
        "mlp_dim",
        "dropout_rate",
        "attention_dropout",
        "layer_norm_epsilon",
        "use_mha_bias",
        "use_mlp_bias",
        "use_class_token",
        "use_patch_bias",
    )

    def is_argument(self, name: str, value: Any) -> bool:
        """Whether an argument may have a value."""
        if name == "image_shape":
            return is_shape(value, open_size=False)
        if name == "patch_size":
            return (
                isinstance(value, list)
                and len(value) == 2
                and all(is_int(v, 1, 256) for v in value)
            )
        if name.startswith("use_"):
            return isinstance(value, bool)
        if name in ("num_layers", "num_heads"):
            return is_int(value, 1, MOST_BLOCKS)
        if name in ("hidden_dim", "mlp_dim"):
            return is_int(value, 1, 4 * MOST_UNITS)
        if name == "layer_norm_epsilon":
            return is_number(value) and 0 < value < 1
        # Dropout must be 0: its random state would be among the weights.
        return value == 0

    def check(self) -> None:
        """Refuses arguments that contradict each other."""
        given = self.arguments
        check(
            given["hidden_dim"] % given["num_heads"] == 0,
            f"{CONFIG}: {given['num_heads']} heads don't divide "
            f"{given['hidden_dim']} units.",
        )
        self.grid(self.image_shape)

    @property
    def first_tokens(self) -> int:
        """The number of tokens before those of the patches."""
        return int(self.arguments["use_class_token"])

    def grid(self, image_shape: tuple[int | None, ...]) -> tuple[int, int]:
        """Returns the number of rows and of columns of patches."""
        sizes = list(zip(image_shape[:2], self.arguments["patch_size"]))
        if any(size is None or size % patch for size, patch in sizes):
            raise PresetError(
                f"Images of shape {image_shape} can't be cut into patches of "
                f"{self.arguments['patch_size']}."
            )
        rows, columns = (size // patch for size, patch in sizes)  # type: ignore
        return rows, columns

    def layout(self, image_shape: tuple[int | None, ...]) -> Layout:
        """Returns the weights for images of a shape, without creating them."""
        given = self.arguments
        units, heads = given["hidden_dim"], given["num_heads"]
        rows, columns = self.grid(image_shape)
        tokens = rows * columns + given["use_class_token"]
        found: list[Weight] = []

        def add(group: str, name: str, *shapes: tuple[str, tuple]) -> None:
            found.extend(
                Weight(f"layers/{group}/vars/{i}", f"{name}/{key}", size)
                for i, (key, size) in enumerate(shapes)
            )

        def norm(group: str, name: str) -> None:
            add(group, name, ("gamma", (units,)), ("beta", (units,)))

        def dense(
            group: str, name: str, kernel: tuple, bias: tuple, has_bias: bool
        ) -> None:
            shapes = [("kernel", kernel), ("bias", bias)]
            add(group, name, *shapes[: 1 + has_bias])

        group, name = (
            "vi_t_patching_and_embedding",
            "vit_patching_and_embedding",
        )
        if given["use_class_token"]:
            add(group, name, ("class_token", (1, 1, units)))
        patch = (*given["patch_size"], image_shape[-1], units)
        dense(
            f"{group}/patch_embedding",
            f"{name}/patch_embedding",
            patch,
            (units,),
            given["use_patch_bias"],
        )
        positions = f"{name}/position_embedding"
        add(
            f"{group}/position_embedding",
            positions,
            ("embeddings", (tokens, units)),
        )
        for i in range(given["num_layers"]):
            block = "vi_t_encoder/encoder_layers/vi_t_encoder_block"
            block += f"_{i}" if i else ""
            name = f"vit_encoder/transformer_block_{i + 1}"
            head = (heads, units // heads)
            norm(f"{block}/layer_norm_1", f"{name}/ln_1")
            for part in ("query", "key", "value"):
                dense(
                    f"{block}/mha/{part}_dense",
                    f"{name}/mha/{part}",
                    (units, *head),
                    head,
                    given["use_mha_bias"],
                )
            dense(
                f"{block}/mha/output_dense",
                f"{name}/mha/attention_output",
                (*head, units),
                (units,),
                given["use_mha_bias"],
            )
            norm(f"{block}/layer_norm_2", f"{name}/ln_2")
            sizes = (units, given["mlp_dim"], units)
            for j in (1, 2):
                dense(
                    f"{block}/mlp/dense_{j}",
                    f"{name}/mlp/dense_{j}",
                    sizes[j - 1 : j + 1],
                    sizes[j : j + 1],
                    given["use_mlp_bias"],
                )
        norm("vi_t_encoder/layer_norm", "vit_encoder/ln")
        return Layout(found, (None, tokens, units))

    def resized(
        self,
        arrays: list[np.ndarray],
        image_shape: tuple[int | None, ...],
        matrix: Matrix = bicubic_matrix,
    ) -> list[np.ndarray]:
        """Returns the weights, positions interpolated for another image shape.

        Args:
            arrays: the weights for images of `self.image_shape`.
            image_shape: `(height, width, channels)`.
            matrix: as in `resized_positions`.
        """
        weights = self.layout(self.image_shape).weights
        old, new = self.grid(self.image_shape), self.grid(image_shape)
        return [
            resized_positions(array, old, new, matrix)
            if weight.name.endswith("position_embedding/embeddings")
            else array
            for weight, array in zip(weights, arrays, strict=True)
        ]
