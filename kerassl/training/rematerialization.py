"""What `keras.RematScope` may recompute in the backward pass."""

import keras

from kerassl.networks import all_layers, is_rematerialized


def check_rematerialized(model: keras.Model) -> None:
    """Refuses to recompute layers that change a weight when they are called.

    On PyTorch, Keras calls them again in the backward pass: moving statistics
    move twice, and dropout draws another mask, which makes gradients wrong. On
    JAX and TensorFlow, Keras fails when it traces the step.

    Args:
        model: `keras.Model`.

    Raises:
        ValueError: if such a layer was made in a `keras.RematScope`, or is
            part of one that was.
    """
    for layer in filter(is_rematerialized, all_layers(model)):
        changing = list(filter(_changes_when_called, all_layers(layer)))
        if changing:
            inner = min(changing, key=lambda each: len(each.variables))
            raise ValueError(
                f"`keras.RematScope` covers the layer {layer.name!r}, which "
                f"would be called twice a step, and each call of "
                f"{inner.name!r}, a {type(inner).__name__}, changes a weight. "
                "Build both outside of the scope."
            )


def _changes_when_called(layer: keras.layers.Layer) -> bool:
    if isinstance(layer, keras.layers.BatchNormalization):
        return layer.trainable
    # Random states are integers.
    return any("int" in variable.dtype for variable in layer.variables)
