"""Features of the stages of an encoder, and of any of its layers.

The last layers often serve the pretext task itself, and earlier ones transfer
better.
"""

import re
from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from kerassl.choices import check_choice
from kerassl.encoders.assembly import pooled
from kerassl.encoders.graph import has_class_token
from kerassl.encoders.kerashub import DINOS, hub_name
from kerassl.image_format import flat_layers
from kerassl.networks import is_graph, replay


def stages(encoder: keras.Model) -> list[str]:
    """Returns the names of an encoder's stages, from input to output.

    - small ResNets, and any model with layers of these names: `stage1`,
      `stage2` and so on;
    - KerasHub's ResNets and other feature pyramids: the names in the backbone's
      `pyramid_outputs`, such as `P2`;
    - KerasHub's ViTs: `transformer_block_1` and so on, the output of each block
      after the ViT's final layer normalization;
    - other models: the last layer of each resolution below that of the images.

    The features of the last stage of a `kerassl.encoders.build` encoder are
    those that the encoder returns.

    Args:
        encoder: `keras.Model` from images to features.

    Returns:
        A list of names for `stage_features` and `embed`; empty if the layers
        can't be reached: the encoder is not a Functional or Sequential model,
        or two layers, one of them in an inner model, have the same name.

    Example:
    ```python
    encoder = kerassl.encoders.build("resnet_18", (64, 64, 3))
    kerassl.encoders.stages(encoder)            # ["P2", "P3", "P4", "P5"]
    ```
    """
    return _Trace(encoder).stages


def stage_features(encoder: keras.Model, names: Sequence[str]) -> keras.Model:
    """Returns a model from images to the features of several stages.

    It shares the encoder's layers and weights, and runs only layers that one of
    the stages needs. Feature maps `(N, H, W, D)` are averaged. Of tokens
    `(N, T, D)` the class token is taken if the model has one, otherwise the
    mean, as in `as_encoder`; and the mean of patches if the encoder ends so.

    Args:
        encoder: Functional or Sequential `keras.Model` from images to features.
        names: the names of stages, or of any layers with one output of rank 2,
            3 or 4, including the layers of inner models such as a backbone.

    Returns:
        A `keras.Model` from images to a dict of float32 features `(N, D)`, by
        name.

    Raises:
        ValueError: if there is no such stage or layer. The message lists the
            nearest names.

    Example:
    ```python
    model = kerassl.encoders.stage_features(encoder, ["stage2", "stage3"])
    features = model.predict(images)["stage2"]
    ```
    """
    trace = _Trace(encoder)
    if not trace.tensors:
        twice = _used_twice(encoder)
        why = (
            f"Two of its layers are called {twice!r}, so they can't be told "
            "apart. Give one another name"
            if twice
            else "It is not a Functional model. Make it one, "
            "`keras.Model(inputs, outputs)`"
        )
        raise ValueError(
            f"The layers of the encoder {encoder.name!r} can't be reached. "
            f"{why}, or use the encoder's output."
        )
    for name in names:
        check_choice(
            f"layer of {encoder.name}", name, trace.tensors, trace.stages
        )
    features = {
        name: pooled(
            trace.tensors[name],
            trace.class_token and not trace.left_out,
            name=f"{name}_pool",
            dtype="float32",
            left_out=trace.left_out.get(trace.tensors[name].shape[1], 0),
        )
        for name in names
    }
    return keras.Model(trace.images, features, name=f"{encoder.name}_stages")


def layer_features(encoder: keras.Model, layer: str) -> keras.Model:
    """Returns a model from images to the features of a layer.

    Args:
        encoder: as in `stage_features`.
        layer: str, a name as in `stage_features`; or `"stages"`, to concatenate
            the features of all stages.

    Returns:
        A `keras.Model` from images to float32 features `(N, D)`.

    Raises:
        ValueError: if there is no such layer, or the encoder has no known
            stages.
    """
    names = stages(encoder) if layer == "stages" else [layer]
    if not names:
        raise ValueError(
            f"The encoder {encoder.name!r} has no known stages. Use its output "
            "or a layer."
        )
    model = stage_features(encoder, names)
    features = [model.output[name] for name in names]
    if len(features) > 1:
        features = [layers.Concatenate(dtype="float32")(features)]
    return keras.Model(model.input, features[0], name=f"{encoder.name}_layer")


def _used_twice(encoder: keras.Model) -> str | None:
    """Returns a name of two layers, which no graph can hold side by side."""
    inner = flat_layers(encoder, whole=lambda layer: not is_graph(layer))
    found = {id(layer): layer for layer in inner}.values()
    names = [x.name for x in found if not isinstance(x, layers.InputLayer)]
    return next((name for name in names if names.count(name) > 1), None)


class _Trace:
    """The outputs of all layers of an encoder, in one graph.

    All layers are called again on a new input, including those of inner models:
    tensors in the graph of an inner model aren't connected to the outer graph.
    It is empty for an encoder that is not a graph, or has a name twice.
    """

    def __init__(self, encoder: keras.Model):
        self.images = keras.Input(encoder.input_shape[1:], name="images")
        self.tensors: dict[str, Any] = {}
        self.class_token = False
        self.blocks: dict[str, Any] = {}
        # How many of the first tokens aren't pooled, by their number.
        self.left_out: dict[int, int] = {}
        self.named: list[str] = []
        self.resolutions: dict[tuple, str] = {}
        if is_graph(encoder) and _used_twice(encoder) is None:
            self._run(encoder, self.images)

    @property
    def stages(self) -> list[str]:
        """The names of the stages, in order."""
        whole = self.images.shape[1:3]
        return self.named or [
            name for size, name in self.resolutions.items() if size != whole
        ]

    def _run(self, model: keras.Model, inputs: Any) -> Any:
        self.class_token |= has_class_token(model)
        outputs = replay(model, inputs, self._call)
        if hub_name(model) in DINOS:
            # It lists the stem, whose class token hasn't seen the image.
            return outputs
        # These tensors belong to the model's original graph: match by layer.
        for name, tensor in getattr(model, "pyramid_outputs", {}).items():
            for layer in model.layers:
                if layer.output is tensor:
                    self._name(name, self.tensors[layer.name])
        return outputs

    def _call(self, layer: Any, *args: Any, **kwargs: Any) -> Any:
        self.class_token |= has_class_token(layer)
        if is_graph(layer):
            outputs = self._run(layer, args)
        elif hub_name(layer) == "ViTEncoder":
            # The same as its `call`, since its blocks are not in the graph.
            outputs = layer.dropout(*args)
            for block in layer.encoder_layers:
                outputs = block(outputs)
                self._name(block.name, layer.layer_norm(outputs))
            outputs = self.tensors[block.name]
        else:
            outputs = layer(*args, **kwargs)
        if self.blocks:
            # The layer normalization after the last block.
            # Keras has sorted their names, with `stage10` before `stage2`.
            for name in sorted(self.blocks, key=lambda name: (len(name), name)):
                self._name(name, layer(self.blocks[name]))
            self.blocks = {}
        if hub_name(layer) in ("DINOV2Encoder", "DINOV3Encoder"):
            self.blocks = outputs[1]
        if not isinstance(outputs, keras.KerasTensor):
            return outputs
        if re.fullmatch(r"stage\d+", layer.name):
            self._name(layer.name, outputs)
        rank = len(outputs.shape)
        if isinstance(layer, layers.Cropping1D):
            first, last = layer.cropping
            if first and not last:
                self.left_out[args[0].shape[1]] = first
        if rank in (2, 3, 4):
            self.tensors[layer.name] = outputs
        if rank == 4 and not isinstance(layer, layers.ZeroPadding2D):
            # Pop first, so that sizes are in the order of their last layers.
            size = outputs.shape[1:3]
            self.resolutions.pop(size, None)
            self.resolutions[size] = layer.name
        return outputs

    def _name(self, stage: str, tensor: Any) -> None:
        self.named.append(stage)
        self.tensors[stage] = tensor
