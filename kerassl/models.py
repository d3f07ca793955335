"""Models made again: from a config, a file, in another precision."""

from pathlib import Path
from typing import Any

import keras

from kerassl.image_format import channels_last, pinned
from kerassl.networks import all_layers, owners, set_weights
from kerassl.reading import one_line

# Dtype policies that compute in half precision.
HALVES = ("mixed_bfloat16", "mixed_float16", "bfloat16", "float16")
# What the names of PyTorch's checkpoints end with.
PYTORCH = (".pth", ".pt", ".tar", ".bin", ".safetensors")


def remade(model: keras.Model) -> Any:
    """Returns a new model from another's config, with new weights."""
    with channels_last():
        new = type(model).from_config(uncompiled(model.get_config()))
    return pinned(new)


def copied(config: dict[str, Any]) -> Any:
    """Returns what a config describes; a model is compiled if it was.

    A model has new weights.

    Args:
        config: the result of `keras.saving.serialize_keras_object`.
    """
    with channels_last():
        return pinned(keras.saving.deserialize_keras_object(config))


def uncompiled(config: Any) -> Any:
    """Returns a config without what models were compiled with, inner ones too.

    A copy has no use for an optimizer, and can't be made if Keras doesn't know
    the loss.

    Args:
        config: the result of `keras.saving.serialize_keras_object`, or of
            `get_config`.
    """
    if isinstance(config, dict):
        return {
            name: uncompiled(value)
            for name, value in config.items()
            if name != "compile_config"
        }
    if isinstance(config, (list, tuple)):
        return type(config)(uncompiled(value) for value in config)
    return config


def load_keras_file(path: str | Path, compile: bool = False) -> Any:
    """Loads a model from a trusted `.keras` file.

    Args:
        path: of the file.
        compile: bool. Whether the optimizer is loaded too.

    Returns:
        A `keras.Model`.

    Raises:
        ValueError: in one line, if Keras can't load it, or refuses to: a
            `Lambda` layer is code; or if it is a checkpoint of PyTorch.
    """
    if Path(path).suffix.lower() in PYTORCH:
        raise ValueError(
            f"{path} has the name of a PyTorch checkpoint. Convert it first: "
            f"kerassl presets convert SOURCE {path} FOLDER; kerassl presets "
            "sources lists what SOURCE may be."
        )
    try:
        with channels_last():
            model = pinned(keras.saving.load_model(path, compile=compile))
    except Exception as error:  # of any type, from any layer
        raise ValueError(
            f"Keras can't load {path}: {one_line(str(error), 600)}"
        ) from error
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"{path} holds a {type(model).__name__}, which is not a "
            "keras.Model."
        )
    return model


def in_float32(model: keras.Model) -> keras.Model:
    """Returns a model whose layers compute in float32: itself, or a copy."""
    if not any(
        layer.dtype_policy.name in HALVES for layer in all_layers(model)
    ):
        return model
    config = keras.tree.map_structure(
        lambda value: "float32" if str(value) in HALVES else value,
        uncompiled(keras.saving.serialize_keras_object(model)),
    )
    copy = copied(config)
    set_weights(copy, model.get_weights())
    return copy


def in_precision(model: keras.Model, policy: str) -> keras.Model:
    """Returns a model whose layers have a dtype policy: itself, or a copy.

    Args:
        model: `keras.Model`.
        policy: name of a Keras dtype policy.
    """

    def changed(value: Any) -> Any:
        if isinstance(value, dict):
            if value.get("class_name") == "DTypePolicy":
                return {**value, "config": {"name": policy}}
            return {key: changed(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(changed(item) for item in value)
        return value

    if all(layer.dtype_policy.name == policy for layer in owners(model)):
        return model
    config = uncompiled(keras.saving.serialize_keras_object(model))
    copy = copied(changed(config))
    set_weights(copy, model.get_weights())
    return copy
