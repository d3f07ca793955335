"""Features from inside an encoder: of its stages, and of any layer.

What a pretext task teaches is often clearest before the last layer, which
serves the task itself.
"""

import re
from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from kerassl.choices import check_choice
from kerassl.encoders.build import pooled
from kerassl.encoders.graph import has_class_token, is_graph, replay
from kerassl.encoders.kerashub import hub_name


def stages(encoder: keras.Model) -> list[str]:
    """Returns the names of an encoder's stages, from input to output.

    - small ResNets, and all models with layers of such names: `stage1`,
      `stage2` and so on;
    - KerasHub's ResNets and other pyramids: the names of the backbone's
      `pyramid_outputs`, such as `P2`;
    - KerasHub's ViTs: `transformer_block_1` and so on, each block's output
      through the ViT's last normalization;
    - other models: the last layer of each resolution, but for the image's own.

    The last stage of a `kerassl.encoders.build` encoder has the features that
    the encoder returns.

    Args:
        encoder: `keras.Model` from images to features.

    Returns:
        A list of names for `stage_features` and `embed`; an empty one if the
        encoder is not a Functional or Sequential model, for then nothing is
        known of its inside.

    Example:
    ```python
    encoder = kerassl.encoders.build("resnet_18", (64, 64, 3))
    kerassl.encoders.stages(encoder)            # ["P2", "P3", "P4", "P5"]
    ```
    """
    return _Trace(encoder).stages


def stage_features(encoder: keras.Model, names: Sequence[str]) -> keras.Model:
    """Returns a model from images to the features of several stages.

    It shares the encoder's layers and weights, and runs no layer that none of
    the stages needs. Of feature maps `(N, H, W, D)` it takes the average. Of
    tokens `(N, T, D)` it takes what `as_encoder` takes: the class token if the
    model has one, else the mean.

    Args:
        encoder: Functional or Sequential `keras.Model` from images to features.
        names: the names of stages; or of any layers with one output of rank 2,
            3 or 4, those of an inner model (a backbone) too.

    Returns:
        A `keras.Model` from images to a dict of name to float32 features
        `(N, D)`.

    Raises:
        ValueError: if there is no such stage or layer, with the nearest ones.

    Example:
    ```python
    model = kerassl.encoders.stage_features(encoder, ["stage2", "stage3"])
    features = model.predict(images)["stage2"]
    ```
    """
    trace = _Trace(encoder)
    if not trace.tensors:
        raise ValueError(
            f"The encoder {encoder.name!r} is not a Functional model, so its "
            "layers can't be reached. Make it one, `keras.Model(inputs, "
            "outputs)`, or take its own output."
        )
    for name in names:
        check_choice(
            f"layer of {encoder.name}", name, trace.tensors, trace.stages
        )
    features = {
        name: pooled(
            trace.tensors[name],
            trace.class_token,
            name=f"{name}_pool",
            dtype="float32",
        )
        for name in names
    }
    return keras.Model(trace.images, features, name=f"{encoder.name}_stages")


def layer_features(encoder: keras.Model, layer: str) -> keras.Model:
    """Returns a model from images to the features of a layer.

    Args:
        encoder: as in `stage_features`.
        layer: str, a name as in `stage_features`; or `"stages"`, for those of
            all stages side by side.

    Returns:
        A `keras.Model` from images to float32 features `(N, D)`.

    Raises:
        ValueError: if there is no such layer, with the nearest ones; or there
            are not stages.
    """
    names = stages(encoder) if layer == "stages" else [layer]
    if not names:
        raise ValueError(
            f"The encoder {encoder.name!r} has no stages that are known. Take "
            "its own output."
        )
    model = stage_features(encoder, names)
    features = [model.output[name] for name in names]
    if len(features) > 1:
        features = [layers.Concatenate(dtype="float32")(features)]
    return keras.Model(model.input, features[0], name=f"{encoder.name}_layer")


class _Trace:
    """The outputs of all layers of an encoder, in one graph.

    The layers are called once more, from a new input, those of inner models
    too: what lies in the graph of an inner model can't be reached from outside.
    Of a model that isn't a graph of layers it knows nothing.
    """

    def __init__(self, encoder: keras.Model):
        self.images = keras.Input(encoder.input_shape[1:], name="images")
        self.tensors: dict[str, Any] = {}
        self.class_token = False
        self.named: list[str] = []
        self.resolutions: dict[tuple, str] = {}
        if is_graph(encoder):
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
        # Their tensors are those of the model's own graph.
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
            # What its `call` does: the blocks are not in the graph.
            outputs = layer.dropout(*args)
            for block in layer.encoder_layers:
                outputs = block(outputs)
                self._name(block.name, layer.layer_norm(outputs))
            outputs = self.tensors[block.name]
        else:
            outputs = layer(*args, **kwargs)
        if not isinstance(outputs, keras.KerasTensor):
            return outputs
        if re.fullmatch(r"stage\d+", layer.name):
            self._name(layer.name, outputs)
        rank = len(outputs.shape)
        if rank in (2, 3, 4):
            self.tensors[layer.name] = outputs
        if rank == 4 and not isinstance(layer, layers.ZeroPadding2D):
            # Popped first: sizes come in the order of their last layers.
            size = outputs.shape[1:3]
            self.resolutions.pop(size, None)
            self.resolutions[size] = layer.name
        return outputs

    def _name(self, stage: str, tensor: Any) -> None:
        self.named.append(stage)
        self.tensors[stage] = tensor
