"""The parts of an encoder that may learn at rates of their own."""

from typing import Any

import keras

from kerassl.encoders.graph import vit_layers
from kerassl.encoders.stages import stages
from kerassl.image_format import flat_layers
from kerassl.networks import all_layers


def parts(encoder: keras.Model) -> dict[str, list[keras.Variable]]:
    """Returns the trainable variables of an encoder by part, in order.

    The parts of a KerasHub ViT or DINO are its embedding and its blocks, by the
    names of these layers; those of other encoders are the `stages`, each with
    all layers since the one before it. The last part includes what comes after
    it.

    Args:
        encoder: `keras.Model` from images to features.

    Returns:
        A dict of a part's name to variables, from input to output. It has a
        single part, `"encoder"`, if the layers can't be reached or there are no
        stages.

    Example:
    ```python
    encoder = kerassl.encoders.build("resnet_nano", (32, 32, 3))
    list(kerassl.encoders.parts(encoder))  # ["stage1", "stage2", "stage3"]
    ```
    """
    found: dict[str, list[keras.Variable]] = {}
    if names := vit_layers(encoder):
        layers = {x.name: x for x in all_layers(encoder) if x.name in names}
        found = {name: layers[name].trainable_variables for name in names}
    else:
        ends = _ends(encoder)
        waiting: list[keras.Variable] = []
        for layer in flat_layers(encoder):
            waiting += getattr(layer, "trainable_variables", [])
            if layer.name in ends:
                found[ends[layer.name]] = waiting
                waiting = []
    known = {id(variable) for part in found.values() for variable in part}
    rest = [x for x in encoder.trainable_variables if id(x) not in known]
    if not found:
        return {"encoder": rest}
    found[list(found)[-1]] += rest
    return found


def _ends(encoder: keras.Model) -> dict[str, str]:
    """Returns the stages by the names of the layers that they end with."""
    ends = {name: name for name in stages(encoder)}
    for model in (encoder, *getattr(encoder, "layers", ())):
        outputs: dict[str, Any] = getattr(model, "pyramid_outputs", {})
        for stage, tensor in outputs.items():
            for layer in model.layers:
                if layer.output is tensor:
                    ends[layer.name] = stage
    return ends
