"""The layers of a network, what belongs to each, and its graph."""

from collections.abc import Callable, Mapping
from typing import Any

import keras


def all_layers(model: Any) -> list[keras.layers.Layer]:
    """Returns all layers in a model, itself, or in a list of models.

    Layers in attributes are included.
    """
    found: dict[int, keras.layers.Layer] = {}
    waiting: list[Any] = [model]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Mapping):
            waiting += value.values()
        elif isinstance(value, (list, tuple)):
            waiting += list(value)
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
    # The innermost layer of a weight has the fewest weights, and comes last; of
    # two with the same ones, that with fewer layers.
    largest_first = sorted(
        all_layers(network),
        key=lambda layer: (-len(layer.weights), -len(all_layers(layer))),
    )
    for layer in largest_first:
        for weight in layer.weights:
            found[id(weight)] = layer
    return [found[id(weight)] for weight in network.weights]


def trained_encoder(model: Any) -> Any:
    """Returns the encoder that a training model trained.

    Args:
        model: a method, whose `feature_encoder` is meant, such as DINO's
            teacher; another model with an `encoder`; or an encoder.
    """
    encoder = getattr(model, "encoder", None)
    # That of a backbone is a layer inside.
    inner = encoder if isinstance(encoder, keras.Model) else model
    return getattr(model, "feature_encoder", inner)


def set_weights(model: keras.layers.Layer, arrays: Any) -> None:
    """Sets the weights of a model, and finalizes its `Normalization` layers.

    Keras's `Normalization` computes with constants derived from its weights,
    which `model.set_weights` doesn't update.

    Args:
        model: layer or model.
        arrays: as `model.get_weights` returns them.
    """
    model.set_weights(arrays)
    finalize(model)


def finalize(model: keras.layers.Layer) -> None:
    """Updates the constants of `Normalization` layers from their weights."""
    for layer in all_layers(model):
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()


def copy_normalization(
    source: keras.layers.Layer, target: keras.layers.Layer
) -> None:
    """Copies the statistics of `Normalization` layers to another model.

    Args:
        source: layer or model.
        target: layer or model with the same layers.
    """
    for layer, old, new in zip(
        owners(source), source.weights, target.weights, strict=True
    ):
        if isinstance(layer, keras.layers.Normalization):
            new.assign(keras.ops.convert_to_numpy(old))
    finalize(target)


def set_trainable(model: keras.layers.Layer, value: bool) -> None:
    """Freezes or thaws a model and all layers in it.

    On TensorFlow, `model.trainable = value` does nothing if the model itself
    has that value already, even if layers inside have another.

    Args:
        model: layer or model.
        value: bool.
    """
    for layer in all_layers(model):
        layer.trainable = not value
        layer.trainable = value


def frozen_parts(model: keras.layers.Layer) -> list[int]:
    """Returns the indices of the weights that belong to frozen layers.

    Args:
        model: layer or model.

    Returns:
        Indices into `model.weights`, for `freeze_parts`.
    """
    return [i for i, layer in enumerate(owners(model)) if not layer.trainable]


def freeze_parts(model: keras.layers.Layer, frozen: list[int]) -> None:
    """Freezes and thaws layers as in another model of the same layers.

    Args:
        model: layer or model.
        frozen: the result of `frozen_parts` for the other model.
    """
    # Outer layers come first, since they set their inner layers too.
    for i, layer in enumerate(owners(model)):
        if layer.trainable == (i in frozen):
            layer.trainable = i not in frozen


def is_graph(model: Any) -> bool:
    """Returns whether a model is a graph from one tensor to one tensor.

    Built Functional and Sequential models are; subclassed models are not.
    """
    if not isinstance(model, keras.Model):
        return False
    ends = [getattr(model, end, None) for end in ("inputs", "outputs")]
    return all(isinstance(end, list) and len(end) == 1 for end in ends)


def replay(
    model: keras.Model, inputs: Any, call: Callable[..., Any] | None = None
) -> Any:
    """Calls the layers of a model again, on another input.

    Layers and weights are shared. An inner model is called as one layer, unless
    `call` replays it in turn.

    Args:
        model: Functional or Sequential `keras.Model`.
        inputs: Keras tensor, or a structure that holds one.
        call: function that is called in place of each layer, in topological
            order, with the layer and the arguments of its call. The value that
            it returns is the layer's output for the rest of the graph. By
            default it calls the layer.

    Returns:
        The output, a Keras tensor.

    Raises:
        ValueError: if the model is not a graph.
    """
    try:
        # For `Sequential` models, Keras has no `call_function`: wrap them.
        graph = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"{model.name!r} is not a Functional or Sequential model."
        ) from error
    # Some KerasHub backbones take a dict of one tensor.
    (inputs,) = keras.tree.flatten(inputs)
    output = inputs

    def kept(layer: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal output
        output = (call or _plain)(layer, *args, **kwargs)
        return output

    keras.models.clone_model(
        graph,
        input_tensors=inputs,
        clone_function=lambda layer: layer,
        call_function=kept,
    )
    # The output of the last call, not that of the clone: if `inputs` is the
    # output of another layer, Keras gives the clone an input of its own.
    return output


def _plain(layer: Any, *args: Any, **kwargs: Any) -> Any:
    return layer(*args, **kwargs)


def is_rematerialized(layer: keras.layers.Layer) -> bool:
    """Returns whether a layer was made in a `keras.RematScope`."""

    def call(*args: Any, **kwargs: Any) -> None:
        """Stands for the layer's own."""

    try:
        return layer.rematerialized_call(call) is not call
    except Exception:
        # The mode "larger_than" asks for the layer's inputs, to know its size.
        return True
