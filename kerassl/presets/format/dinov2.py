"""KerasHub's DINOv2, checked before it is built."""

from typing import Any

import numpy as np

from kerassl.layers.positions import bicubic_matrix, resized_positions
from kerassl.presets.format.architecture import Layout, Weight
from kerassl.presets.format.backbones import (
    MOST_BLOCKS,
    MOST_UNITS,
    Backbone,
)
from kerassl.presets.format.info import CONFIG, PresetError, check, is_shape
from kerassl.presets.format.positions import Matrix, dino_bicubic
from kerassl.reading import is_int, is_number, shown

POSITIONS = "position_embeddings"


class DINOv2(Backbone):
    """`keras_hub.models.DINOV2Backbone`, with positions of one image size.

    KerasHub's class may hold the positions of the released weights beside those
    of its image size. A preset holds only the latter, twice.
    """

    class_name = "DINOV2Backbone"
    names = (
        "patch_size",
        "num_layers",
        "hidden_dim",
        "num_heads",
        "intermediate_dim",
        "layer_scale_init_value",
        "num_register_tokens",
        "use_mask_token",
        "use_swiglu_ffn",
        "dropout_rate",
        "drop_path_rate",
        "image_shape",
        "position_embedding_shape",
        "antialias_in_interpolation",
        "apply_layernorm",
    )

    def is_argument(self, name: str, value: Any) -> bool:
        """Whether an argument may have a value."""
        if name in ("image_shape", "position_embedding_shape"):
            return is_shape(value, open_size=False) and value[0] == value[1]
        if name == "patch_size":
            return is_int(value, 1, 256)
        if name in ("num_layers", "num_heads"):
            return is_int(value, 1, MOST_BLOCKS)
        if name in ("hidden_dim", "intermediate_dim"):
            return is_int(value, 1, 4 * MOST_UNITS)
        if name == "num_register_tokens":
            return is_int(value, 0, 64)
        if name == "layer_scale_init_value":
            return is_number(value) and 0 <= value <= 1
        if name in ("dropout_rate", "drop_path_rate"):
            return value == 0
        return isinstance(value, bool)

    def check(self) -> None:
        """Refuses arguments that contradict each other."""
        given = self.arguments
        check(
            given["hidden_dim"] % given["num_heads"] == 0,
            f"{CONFIG}: {given['num_heads']} heads don't divide "
            f"{given['hidden_dim']} units.",
        )
        check(
            given["image_shape"] == given["position_embedding_shape"],
            f"{CONFIG}: the positions must be those of the images of "
            f"{shown(given['image_shape'])}. `position_embedding_shape` is "
            f"{shown(given['position_embedding_shape'])}. Build the encoder by "
            "name, such as hub:dinov2_small.",
        )
        self.grid(self.image_shape)

    @property
    def first_tokens(self) -> int:
        """The number of tokens before those of the patches."""
        return 1 + self.arguments["num_register_tokens"]

    def grid(self, image_shape: tuple[int | None, ...]) -> tuple[int, int]:
        """Returns the number of rows and of columns of patches."""
        height, width = image_shape[:2]
        patch = self.arguments["patch_size"]
        if height is None or height != width or height % patch:
            raise PresetError(
                f"A {self.class_name} takes square images of a multiple of its "
                f"patches of {patch} px. Received: {image_shape}"
            )
        return height // patch, height // patch

    def layout(self, image_shape: tuple[int | None, ...]) -> Layout:
        """Returns the weights for images of a shape, without creating them."""
        given = self.arguments
        units, heads = given["hidden_dim"], given["num_heads"]
        rows, columns = self.grid(image_shape)
        found: list[Weight] = []

        def add(group: str, name: str, *shapes: tuple[str, tuple]) -> None:
            found.extend(
                Weight(f"layers/{group}/vars/{i}", f"{name}{key}", size)
                for i, (key, size) in enumerate(shapes)
            )

        def norm(group: str, name: str) -> None:
            add(group, name, ("gamma", (units,)), ("beta", (units,)))

        def dense(group: str, name: str, kernel: tuple, bias: tuple) -> None:
            add(group, name, ("kernel", kernel), ("bias", bias))

        positions = (1, rows * columns + 1, units)
        tokens: list[tuple[str, tuple]] = [("cls_token", (1, 1, units))]
        if given["use_mask_token"]:
            tokens.append(("mask_token", (1, units)))
        if given["num_register_tokens"]:
            count = given["num_register_tokens"]
            tokens.append(("register_tokens", (1, count, units)))
        tokens += [(f"interpolated_{POSITIONS}", positions)]
        embedding = "dinov2_embedding"
        add(embedding, "", *tokens, (POSITIONS, positions))
        patch = given["patch_size"]
        dense(
            f"{embedding}/patch_embeddings/projection",
            "patch_embeddings/projection/",
            (patch, patch, image_shape[-1], units),
            (units,),
        )
        head = (heads, units // heads)
        for i in range(given["num_layers"]):
            block = "dinov2_encoder/layers/dinov2_layer"
            block += f"_{i}" if i else ""
            name = f"layers_{i}"
            norm(f"{block}/norm1", f"{name}/norm1/")
            for part in ("query", "key", "value"):
                dense(
                    f"{block}/attention/attention/{part}_dense",
                    f"{name}/attention/attention/{part}/",
                    (units, *head),
                    head,
                )
            dense(
                f"{block}/attention/attention/output_dense",
                f"{name}/attention/attention/attention_output/",
                (*head, units),
                (units,),
            )
            scale = ("lambda1", (units,))
            add(f"{block}/layer_scale1", f"{name}/layer_scale1/", scale)
            norm(f"{block}/norm2", f"{name}/norm2/")
            for part, inputs, outputs in self._mlp():
                dense(
                    f"{block}/mlp/{part}",
                    f"{name}/mlp/{part}/",
                    (inputs, outputs),
                    (outputs,),
                )
            add(f"{block}/layer_scale2", f"{name}/layer_scale2/", scale)
        norm("layer_normalization", "")
        return Layout(found, (None, self.first_tokens + rows * columns, units))

    def _mlp(self) -> list[tuple[str, int, int]]:
        """Returns the name, inputs and outputs of a block's dense layers."""
        units = self.arguments["hidden_dim"]
        inner = self.arguments["intermediate_dim"]
        if not self.arguments["use_swiglu_ffn"]:
            return [("fc1", units, inner), ("fc2", inner, units)]
        # As KerasHub rounds it.
        inner = (int(inner * 2 / 3) + 7) // 8 * 8
        return [("weights_in", units, 2 * inner), ("weights_out", inner, units)]

    def settled(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        """Returns a model's weights with the trained positions in both places.

        KerasHub's class trains one variable, and saves another.
        """
        names = [w.name for w in self.layout(self.image_shape).weights]
        trained = arrays[names.index(f"interpolated_{POSITIONS}")]
        return [
            trained if name == POSITIONS else array
            for name, array in zip(names, arrays, strict=True)
        ]

    def resized(
        self,
        arrays: list[np.ndarray],
        image_shape: tuple[int | None, ...],
        matrix: Matrix = bicubic_matrix,
    ) -> list[np.ndarray]:
        """Returns the weights, positions interpolated for another image shape.

        As the authors do it: without antialiasing and with 0.1 added to the
        size, unless the backbone says `antialias_in_interpolation`.
        """
        if not self.arguments["antialias_in_interpolation"]:
            matrix = dino_bicubic
        weights = self.layout(self.image_shape).weights
        old, new = self.grid(self.image_shape), self.grid(image_shape)
        return [
            resized_positions(array[0], old, new, matrix)[None]
            if weight.name.endswith(POSITIONS)
            else array
            for weight, array in zip(weights, arrays, strict=True)
        ]

    def apply(self, images: Any) -> Any:
        """Creates the backbone for images and calls it on them."""
        return self._model(images.shape[1:])({"images": images})

    def arguments_for(
        self, image_shape: tuple[int | None, ...]
    ) -> dict[str, Any]:
        """Returns the backbone's arguments for images of a shape."""
        return {
            **super().arguments_for(image_shape),
            "position_embedding_shape": image_shape,
        }
