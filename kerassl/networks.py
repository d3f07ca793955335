"""The layers of a network, and what belongs to each."""

from collections.abc import Mapping
from typing import Any

import keras


def all_layers(model: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Returns the layers of a model, those in its attributes too."""
    found: dict[int, keras.layers.Layer] = {}
    waiting: list[Any] = [model]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Mapping):
            waiting += value.values()
        elif isinstance(value, (list, tuple)):
            waiting += value
        elif isinstance(value, keras.layers.Layer) and id(value) not in found:
            found[id(value)] = value
            waiting += vars(value).values()
    return list(found.values())


def owners(network: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Returns the layer that each of a network's weights belongs to.

    Args:
        network: layer or model.

    Returns:
        A list of layers, in the order of `network.weights`.
    """
    found = {}
    # The innermost ones have the fewest weights, and come last.
    largest_first = sorted(
        all_layers(network), key=lambda layer: -len(layer.weights)
    )
    for layer in largest_first:
        for weight in layer.weights:
            found[id(weight)] = layer
    return [found[id(weight)] for weight in network.weights]


def set_weights(model: keras.layers.Layer, arrays: Any) -> None:
    """Gives a model weights, as `model.set_weights` does, and what they imply.

    Keras's `Normalization` works with constants that it makes of its weights,
    which `set_weights` leaves as they were.

    Args:
        model: layer or model.
        arrays: as `model.get_weights` returns them.
    """
    model.set_weights(arrays)
    finalize(model)


def finalize(model: keras.layers.Layer) -> None:
    """Lets Keras's `Normalization` work with the weights that it has."""
    for layer in all_layers(model):
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()


def copy_normalization(
    source: keras.layers.Layer, target: keras.layers.Layer
) -> None:
    """Gives a model's `Normalization` layers what another's were adapted to.

    Args:
        source: layer or model.
        target: one of the same layers.
    """
    for layer, old, new in zip(
        owners(source), source.weights, target.weights, strict=True
    ):
        if isinstance(layer, keras.layers.Normalization):
            new.assign(keras.ops.convert_to_numpy(old))
    finalize(target)


def set_trainable(model: keras.layers.Layer, value: bool) -> None:
    """Freezes or thaws all layers of a model, as `model.trainable = value`.

    On TensorFlow that does nothing where it is the value already, though layers
    inside have another one.

    Args:
        model: layer or model.
        value: bool.
    """
    for layer in all_layers(model):
        layer.trainable = not value
        layer.trainable = value


def frozen_parts(model: keras.layers.Layer) -> list[int]:
    """Returns where in a model's weights those of frozen layers are.

    Args:
        model: layer or model.

    Returns:
        Indices, for `freeze_parts`.
    """
    return [i for i, layer in enumerate(owners(model)) if not layer.trainable]


def freeze_parts(model: keras.layers.Layer, frozen: list[int]) -> None:
    """Freezes the layers that `frozen_parts` found in a model like it.

    Args:
        model: layer or model.
        frozen: what `frozen_parts` returned.
    """
    # Outer layers come first, and freeze their inner ones too.
    for i, layer in enumerate(owners(model)):
        if layer.trainable == (i in frozen):
            layer.trainable = i not in frozen
