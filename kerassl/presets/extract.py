"""Takes encoders apart into the model that is published and the rest."""

import json
import re
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers

from kerassl import encoders
from kerassl.encoders.graph import first_tokens
from kerassl.encoders.normalization import ARITHMETIC
from kerassl.encoders.sizes import takes_the_first
from kerassl.image_format import LAST
from kerassl.models import in_float32
from kerassl.networks import replay, trained_encoder
from kerassl.presets.format.architecture import (
    FLOAT32,
    Architecture,
    check_order,
)
from kerassl.presets.format.backbones import Backbone
from kerassl.presets.format.build import Preset
from kerassl.presets.format.graph import Graph
from kerassl.presets.format.info import PresetError, PresetInfo
from kerassl.presets.format.kinds import BACKBONES

# Layers that do nothing in inference, and have random state.
DROPPED = (layers.Dropout, layers.SpatialDropout2D, layers.GaussianNoise)


def published(encoder: keras.Model, **fields: Any) -> Preset:
    """Takes an encoder apart: its published model, normalization and pooling.

    Args:
        encoder: Functional `keras.Model` from images to features `(N, D)`.
        **fields: fields of `PresetInfo`, `name` among them. Those that follow
            from the encoder are filled in.

    Returns:
        A `Preset` in float32, without files.

    Raises:
        PresetError: if presets can't hold such an encoder; names the layer.
    """
    output, normalization, model, architecture = _taken_apart(encoder)
    image_shape = encoder.input_shape[1:]
    arrays = [
        np.asarray(keras.ops.convert_to_numpy(w), "float32")
        for w in model.weights
    ]
    if isinstance(architecture, Backbone):
        arrays = architecture.settled(arrays)
    info = PresetInfo(
        **fields,
        architecture=plain_name(encoder.name),
        class_name=architecture.class_name,
        output=output,
        image_shape=image_shape,
        features=encoder.output_shape[-1],
        parameters=sum(array.size for array in arrays),
        normalization=normalization,
    )
    return Preset(info, architecture, arrays)


def check_encoder(encoder: Any) -> None:
    """Refuses an encoder that can't be saved as a preset.

    `save_preset` would refuse it too, but only after training. This is quick:
    weights aren't read. `kerassl.callbacks.PresetCheck` does the same as `fit`
    begins.

    Args:
        encoder: `keras.Model` from images to features, or a training model.

    Raises:
        PresetError: if presets can't hold such an encoder; names the layer.

    Example:
    ```python
    kerassl.presets.check_encoder(encoder)  # before hours of training
    ```
    """
    found = trained_encoder(encoder)
    try:
        _taken_apart(encoders.as_encoder(found))
    except PresetError as error:
        raise PresetError(
            f"No preset can be made of the encoder {found.name!r}: {error}"
        ) from error


def _taken_apart(
    encoder: keras.Model,
) -> tuple[str, dict[str, list[float]] | None, keras.Model, Architecture]:
    """Returns output, normalization, published model and architecture."""
    normalization = None
    backbones = [x for x in encoder.layers if _backbone_name(x)]
    architecture: Architecture
    if backbones:
        output, normalization = _around(encoder, backbones[0])
        model = backbones[0]
        architecture = _backbone(model)
    else:
        output, model, architecture = _graph(encoder)
    check_order(model, architecture.layout(encoder.input_shape[1:]).weights)
    return output, normalization, model, architecture


def _backbone_name(layer: Any) -> str | None:
    name = keras.saving.get_registered_name(type(layer))
    return name if name.startswith("keras_hub>") else None


def _around(
    encoder: keras.Model, backbone: Any
) -> tuple[str, dict[str, list[float]] | None]:
    """Returns the kind of output, and the normalization."""
    _, _, calls = _called(encoder, whole=_backbone_name)
    chain = [layer for layer, _ in calls]
    names = [type(layer).__name__ for layer in chain]
    pixel = (1, 1, 1, encoder.input_shape[-1])
    scale, offset = np.ones(pixel[-1]), np.zeros(pixel[-1])
    normalization = None
    while type(chain[0]) is layers.Rescaling:
        values = chain[0].scale, chain[0].offset
        if np.broadcast_shapes(pixel, *map(np.shape, values)) != pixel:
            break
        factor, shift = map(np.ravel, values)
        scale, offset = scale * factor, offset * factor + shift
        normalization = {"scale": scale.tolist(), "offset": offset.tolist()}
        del chain[0]
    first, *after = chain
    output = {
        (layers.GlobalAveragePooling2D,): "map",
        (layers.GlobalAveragePooling1D,): "tokens",
        (layers.Cropping1D, layers.Reshape): "class_token",
        (layers.Cropping1D, layers.GlobalAveragePooling1D): "patches",
    }.get(tuple(type(layer) for layer in after))
    # Only the first token; or the mean of all patches, and of nothing else.
    if (output == "class_token" and not takes_the_first(after[0])) or (
        output == "patches" and after[0].cropping != (first_tokens(backbone), 0)
    ):
        output = None
    if first is not backbone or output is None:
        raise PresetError(
            "A preset holds a KerasHub backbone with a Rescaling before it "
            "and pooling after it: the average, the first token, or the mean "
            f"of the patches. {encoder.name} has {names}."
        )
    return output, normalization


def _backbone(model: Any) -> Backbone:
    name = type(model).__name__
    if name not in BACKBONES:
        raise PresetError(
            f"Presets support the KerasHub backbones {', '.join(BACKBONES)}, "
            f"and not {name}."
        )
    if getattr(model, "data_format", LAST) != LAST:
        raise PresetError(f"{name} isn't channels last.")
    config = serialized(model)
    config["config"].update(name="backbone", trainable=True, dtype=FLOAT32)
    for key in ("dropout_rate", "attention_dropout", "drop_path_rate"):
        if key in config["config"]:
            config["config"][key] = 0.0
    return BACKBONES[name](config)


def _graph(encoder: keras.Model) -> tuple[str, keras.Model, Graph]:
    """Flattens nested models into one graph, up to the last map."""
    images, x, calls = _called(encoder)
    layer, source = calls[-1] if calls else (None, None)
    output = {2: "features", 3: "tokens", 4: "map"}[len(x.shape)]
    if isinstance(layer, layers.GlobalAveragePooling2D):
        x, output = source, "map"
    flat = keras.Model(images, x, name=plain_name(encoder.name))
    config = serialized(flat)
    for part in config["config"]["layers"]:
        fields = part["config"]
        for key in fields:
            if key.endswith(("_regularizer", "_constraint")):
                fields[key] = None
            elif key == "trainable":
                fields[key] = True
            elif key == "dtype":
                is_input = part["class_name"] == "InputLayer"
                fields[key] = "float32" if is_input else FLOAT32
            elif key == "scale" and isinstance(fields[key], list):
                fields[key] = np.ravel(fields[key]).tolist()  # See `pinned`.
            elif key == "axis":
                for layer in flat.layers:
                    if layer.name == fields["name"]:
                        rank = len(layer.output.shape)
                        fields[key] = _from_the_end(fields[key], rank)
    return output, flat, Graph(config)


def _called(
    encoder: keras.Model, whole: Callable[[Any], Any] = lambda layer: False
) -> tuple[Any, Any, list[tuple[Any, Any]]]:
    """Calls the layers of an encoder again: those that presets support.

    Args:
        encoder: Functional or Sequential `keras.Model`.
        whole: function that returns whether to call an inner model as it is.

    Returns:
        Images, the output, and the layers in order, each with its input.

    Raises:
        PresetError: if the encoder is not a graph.
    """
    images = keras.Input(encoder.input_shape[1:], name="images")
    calls: list[tuple[Any, Any]] = []

    def call(layer: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(layer, DROPPED):
            return x
        if isinstance(layer, keras.Model) and not whole(layer):
            return replay(layer, x, call)
        result = _in_core_layers(layer, x, *args)
        if result is None:
            result = layer(x, *args, **kwargs)
        else:
            layer = result._keras_history.operation
        calls.append((layer, x))
        return result

    try:
        return images, replay(encoder, images, call), calls
    except PresetError:
        raise
    except (AttributeError, TypeError, ValueError) as error:
        raise PresetError(
            f"{encoder.name} is not a graph of layers: {error}"
        ) from error


def _in_core_layers(layer: Any, *inputs: Any) -> Any:
    """Returns a layer's output, computed by a core layer that presets support.

    Returns `None` if the layer needs no replacement. `Normalization` stores its
    statistics as weights, ConvNeXt's `LayerScale` is not a public class, and
    `x + y` or `x / 255` are not layers.
    """
    x = inputs[0]
    if type(layer).__name__ in ARITHMETIC and not isinstance(
        layer, layers.Layer
    ):
        return _arithmetic(layer, inputs)
    if isinstance(layer, layers.Normalization):
        layer = in_float32(layer)
        shape = (1, *(size or 1 for size in x.shape[1:]))
        offset, one = (
            np.asarray(keras.ops.convert_to_numpy(layer(np.full(shape, v))))
            for v in (0.0, 1.0)
        )
        values = np.stack([one - offset, offset]).reshape(2, -1, shape[-1])
        if np.ptp(values, axis=1).any():
            raise PresetError(
                f"The layer {layer.name!r} normalizes each position "
                "differently. A preset can only rescale each channel."
            )
        scale, offset = values[:, 0].astype(float).tolist()
        return layers.Rescaling(scale, offset, name=layer.name)(x)
    if type(layer).__name__ == "LayerScale" and len(x.shape) == 4:
        (gamma,) = layer.get_weights()
        same = layers.DepthwiseConv2D(
            1, use_bias=False, data_format=LAST, name=layer.name
        )
        result = same(x)
        same.set_weights([gamma.reshape(1, 1, -1, 1)])
        return result
    return None


def _arithmetic(operation: Any, inputs: tuple) -> Any:
    """Returns `x + y` or `x * y`, or a Rescaling for one tensor and numbers."""
    tensors = [x for x in inputs if isinstance(x, keras.KerasTensor)]
    if len(tensors) == 2:
        kind = {"Add": layers.Add, "Multiply": layers.Multiply}.get(
            type(operation).__name__
        )
        return kind and kind(name=operation.name)(tensors)
    (x,) = tensors
    channels = x.shape[-1]

    def at(value: float) -> np.ndarray:
        pixel = np.full((1, channels), value, "float32")
        found = operation(*(pixel if y is x else y for y in inputs))
        return np.asarray(keras.ops.convert_to_numpy(found), float)

    zero, one, ten = at(0), at(1), at(10)
    straight = np.allclose(ten - zero, 10 * (one - zero), rtol=1e-5)
    if zero.size != channels or not straight:
        return None
    numbers = [v.ravel().tolist() for v in (one - zero, zero)]
    scale, offset = (v[0] if len(set(v)) == 1 else v for v in numbers)
    return layers.Rescaling(scale, offset, name=operation.name)(x)


def _from_the_end(axis: Any, rank: int) -> Any:
    """Replaces the number of the last axis by -1."""
    if isinstance(axis, list):
        return [_from_the_end(a, rank) for a in axis]
    return -1 if axis == rank - 1 else axis


def serialized(model: keras.Model) -> dict[str, Any]:
    """Returns a model's `config.json`, as KerasHub writes it."""
    text = json.dumps(keras.saving.serialize_keras_object(model))

    def plain(fields: dict[str, Any]) -> dict[str, Any]:
        fields.pop("build_config", None)
        fields.pop("compile_config", None)
        return fields

    return json.loads(text, object_hook=plain)


def plain_name(text: str) -> str:
    """Turns any text into a valid name of a preset."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", text).lstrip(".-")[:96] or "preset"
