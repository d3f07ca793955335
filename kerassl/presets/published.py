"""What of an encoder is published: the part that loads without kerassl."""

import json
import re
from typing import Any

import keras
import numpy as np
from keras import layers

from kerassl.presets.backbones import BACKBONES, Backbone
from kerassl.presets.build import Preset
from kerassl.presets.graph import FLOAT32, Architecture, Graph, check_order
from kerassl.presets.info import UNLICENSED, PresetError, PresetInfo

# What changes nothing in inference, and has a random state.
DROPPED = (layers.Dropout, layers.SpatialDropout2D, layers.GaussianNoise)


def published(encoder: keras.Model, **fields: Any) -> Preset:
    """Takes an encoder apart: its published model, and what goes around it.

    Args:
        encoder: Functional `keras.Model` from images to features `(N, D)`.
        **fields: of `PresetInfo`; those that follow from the encoder are
            filled in.

    Returns:
        A `Preset` in float32, without files.

    Raises:
        PresetError: if presets can't hold such an encoder; says which layer
            is in the way.
    """
    normalization = None
    backbones = [x for x in encoder.layers if _backbone_name(x)]
    architecture: Architecture
    if backbones:
        output, normalization = _around(encoder, backbones[0])
        model = backbones[0]
        architecture = _backbone(model)
    else:
        output, model, architecture = _graph(encoder)
    image_shape = encoder.input_shape[1:]
    weights = architecture.layout(image_shape).weights
    check_order(model, weights)
    arrays = [
        np.asarray(keras.ops.convert_to_numpy(w), "float32")
        for w in model.weights
    ]
    info = PresetInfo(
        **{
            "name": "preset",
            "license": UNLICENSED,
            "description": "",
            "method": None,
            "datasets": (),
            "scores": {},
            "recipe": None,
            "recipe_hash": None,
            "training": {},
            "versions": {},
            "files": {},
        }
        | fields,
        architecture=encoder.name,
        class_name=architecture.class_name,
        output=output,
        image_shape=image_shape,
        features=encoder.output_shape[-1],
        parameters=sum(array.size for array in arrays),
        normalization=normalization,
    )
    return Preset(info, architecture, arrays)


def _backbone_name(layer: Any) -> str | None:
    name = keras.saving.get_registered_name(type(layer))
    return name if name.startswith("keras_hub>") else None


def _around(
    encoder: keras.Model, backbone: Any
) -> tuple[str, dict[str, list[float]] | None]:
    """Returns how tokens or maps become features, and the normalization."""
    kinds = [type(layer) for layer in encoder.layers if layer is not backbone]
    normalization = None
    if kinds[1:2] == [layers.Rescaling]:
        rescaling = encoder.layers[1]
        channels = encoder.input_shape[-1]
        normalization = {
            name: [
                float(v)
                for v in np.broadcast_to(getattr(rescaling, name), channels)
            ]
            for name in ("scale", "offset")
        }
        del kinds[1]
    output = {
        (layers.InputLayer, layers.GlobalAveragePooling2D): "map",
        (layers.InputLayer, layers.GlobalAveragePooling1D): "tokens",
        (layers.InputLayer, layers.Cropping1D, layers.Reshape): "class_token",
    }.get(tuple(kinds))
    if output is None:
        raise PresetError(
            f"A preset holds a KerasHub backbone with a Rescaling before it "
            f"and pooling after it. {encoder.name} has "
            f"{[type(layer).__name__ for layer in encoder.layers]}."
        )
    return output, normalization


def _backbone(model: Any) -> Backbone:
    name = type(model).__name__
    if name not in BACKBONES:
        raise PresetError(
            f"Presets hold the backbones {', '.join(BACKBONES)} of KerasHub, "
            f"and not {name}."
        )
    config = serialized(model)
    config["config"].update(name="backbone", trainable=True, dtype=FLOAT32)
    for key in ("dropout_rate", "attention_dropout"):
        if key in config["config"]:
            config["config"][key] = 0.0
    return BACKBONES[name](config)


def _graph(encoder: keras.Model) -> tuple[str, keras.Model, Graph]:
    """Makes one graph of nested ones, up to the last map."""
    images = keras.Input(encoder.input_shape[1:], name="images")
    sources: dict[int, tuple[Any, Any]] = {}

    def run(model: keras.Model, inputs: Any) -> Any:
        result = inputs

        def call(layer: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
            nonlocal result
            if isinstance(layer, DROPPED):
                result = x
            elif isinstance(layer, keras.Model):
                result = run(layer, x)
            else:
                result = layer(x, *args, **kwargs)
                sources[id(result)] = (layer, x)
            return result

        # A `Sequential` becomes a graph, which alone has calls.
        keras.models.clone_model(
            keras.Model(model.inputs[0], model.outputs[0]),
            input_tensors=inputs,
            clone_function=lambda layer: layer,
            call_function=call,
        )
        return result  # Of the last call, which is the output's.

    try:
        x = run(encoder, images)
    except (AttributeError, TypeError, ValueError) as error:
        raise PresetError(
            f"{encoder.name} is no graph of layers, as presets are: {error}"
        ) from error
    layer, source = sources.get(id(x), (None, None))
    output = {2: "features", 3: "tokens", 4: "map"}[len(x.shape)]
    if isinstance(layer, layers.GlobalAveragePooling2D):
        x, output = source, "map"
    flat = keras.Model(images, x, name=encoder.name)
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
    return output, flat, Graph(config)


def serialized(model: keras.Model) -> dict[str, Any]:
    """Returns a model as `config.json` has it, as KerasHub writes it."""
    text = json.dumps(keras.saving.serialize_keras_object(model))

    def plain(fields: dict[str, Any]) -> dict[str, Any]:
        fields.pop("build_config", None)
        fields.pop("compile_config", None)
        return fields

    return json.loads(text, object_hook=plain)


def plain_name(text: str) -> str:
    """Makes a preset's name of any text."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", text).lstrip(".-")[:96] or "preset"
