"""Functional models of core Keras layers, checked before they are built.

A `config.json` is treated as data. Keras's own reader would build any
registered class that it names. `Graph` accepts a fixed set of layers, checks
their arguments, and computes the shapes of the weights before creating any.
"""

import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers

from kerassl.image_format import channels_last
from kerassl.presets.format.architecture import (
    Architecture,
    Layout,
    Weight,
    object_config,
)
from kerassl.presets.format.core_layers import (
    LARGEST,
    LAYERS,
    MOST_VALUES,
    WEIGHTED,
    check_argument,
)
from kerassl.presets.format.info import CONFIG, PresetError, check
from kerassl.reading import is_int, shown

MOST_LAYERS = 4096
# Keras walks a graph recursively, from a layer to its first input and then to
# the others. Python allows 1000 frames, including the caller's.
DEEPEST = 850


class _Node(NamedTuple):
    layer: Any  # not built
    inputs: list[str]
    listed: bool

    def call(self, function: Callable, values: dict[str, Any]) -> Any:
        found = [values[name] for name in self.inputs]
        return function(found if self.listed else found[0])


class Graph(Architecture):
    """A Functional model of core Keras layers, checked but not built.

    Args:
        config: the content of `config.json`.

    Raises:
        PresetError: if it contains anything but layers listed in `LAYERS`,
            each called once, with arguments within bounds.
    """

    class_name = "Functional"

    def __init__(self, config: Any):
        fields = object_config(config, "Functional", "keras", "Functional")
        _keys(fields, "the model", "layers", "input_layers", "output_layers")
        self.name = _name(fields.get("name"))
        found = fields["layers"]
        check(
            isinstance(found, list) and 2 <= len(found) <= MOST_LAYERS,
            f"{CONFIG}: `layers` must list 2 to {MOST_LAYERS} layers.",
        )
        self.input_name, self.image_shape = _input(found[0])
        self.nodes: dict[str, _Node] = {}
        for layer in found[1:]:
            node = self._node(layer)
            self.nodes[node.layer.name] = node
        for key in ("input_layers", "output_layers"):
            ends = fields[key]
            if isinstance(ends, list) and len(ends) == 1:
                ends = ends[0]
            names = (
                [self.input_name] if key == "input_layers" else list(self.nodes)
            )
            check(
                isinstance(ends, list)
                and len(ends) == 3
                and ends[0] in names
                and ends[1:] == [0, 0],
                f"{CONFIG}: `{key}` must be one layer of the graph, "
                f"[name, 0, 0]. Found: {shown(ends)}",
            )
        self.output_name = ends[0]
        check(
            self._depth() <= DEEPEST,
            f"{CONFIG} has a chain of more than {DEEPEST} layers.",
        )

    def _depth(self) -> int:
        """Returns the depth of Keras's recursion over the graph."""
        seen: set[str] = set()
        left, deepest = [(self.output_name, 1)], 0
        while left:
            name, depth = left.pop()
            if name in seen or name == self.input_name:
                continue
            seen.add(name)
            deepest = max(deepest, depth)
            inputs = reversed(self.nodes[name].inputs)
            left += [(other, depth + 1) for other in inputs]
        return deepest

    def layout(self, image_shape: tuple[int | None, ...]) -> Layout:
        """Returns the weights for images of a shape, without creating them.

        Raises:
            PresetError: if the layers don't fit the images or each other, or
                an output is too large.
        """
        shapes: dict[str, Any] = {self.input_name: (None, *image_shape)}
        counts: dict[str, int] = {}
        found = []
        for name, (layer, inputs, listed) in self.nodes.items():
            node = self.nodes[name]
            kind, weights_of = WEIGHTED.get(type(layer), ("", None))
            if weights_of:
                shape = shapes[inputs[0]]
                check(
                    not listed and type(shape[-1]) is int,
                    f"{CONFIG}: {name!r} needs one input whose number of "
                    "channels is known.",
                )
                number = counts[kind] = counts.get(kind, -1) + 1
                group = kind if number == 0 else f"{kind}_{number}"
                found += [
                    Weight(f"layers/{group}/vars/{i}", f"{name}/{key}", size)
                    for i, (key, size) in enumerate(
                        weights_of(layer, shape).items()
                    )
                ]
            if isinstance(layer, layers.Rescaling):
                # Other sizes would broadcast to more channels, which Keras's
                # shape inference doesn't see.
                channels = shapes[inputs[0]][-1]
                sizes = {np.size(layer.scale), np.size(layer.offset)}
                check(
                    sizes <= {1, channels},
                    f"{CONFIG}: {name!r} needs one `scale` and `offset`, or "
                    f"one for each of the {channels} channels.",
                )
            try:
                shape = tuple(node.call(layer.compute_output_shape, shapes))
            except Exception as error:
                raise PresetError(
                    f"{CONFIG}: the layer {name!r} doesn't fit its inputs "
                    f"{shown([shapes[n] for n in inputs])}: {error}"
                ) from error
            values = math.prod(size or 1 for size in shape[1:])
            check(
                0 < values <= MOST_VALUES,
                f"{CONFIG}: the layer {name!r} is too large: its output has "
                f"the shape {shape}, and {MOST_VALUES:,} values are the most.",
            )
            shapes[name] = shape
        return Layout(found, shapes[self.output_name])

    def apply(self, images: Any) -> Any:
        """Creates new layers and calls them on images."""
        tensors = {self.input_name: images}
        for name, node in self.nodes.items():
            layer = type(node.layer).from_config(node.layer.get_config())
            tensors[name] = node.call(layer, tensors)
        return tensors[self.output_name]

    def model(self) -> keras.Model:
        """Returns the published model, with initial weights."""
        images = keras.Input(
            self.image_shape, dtype="float32", name=self.input_name
        )
        return keras.Model(images, self.apply(images), name=self.name)

    def _node(self, found: Any) -> _Node:
        kind = found.get("class_name") if isinstance(found, dict) else None
        check(
            isinstance(kind, str) and kind in LAYERS,
            f"{CONFIG} names the class {shown(kind)}, which isn't one of the "
            f"core layers of a preset: {', '.join(sorted(LAYERS))}.",
        )
        fields = object_config(found, kind, "keras.layers", None)
        name = _name(fields.get("name"))
        check(
            found.get("name") == name
            and name not in self.nodes
            and name != self.input_name,
            f"{CONFIG}: the layer name {name!r} isn't unique, or differs from "
            "the entry's.",
        )
        for key, value in fields.items():
            check_argument(name, key, value)
        inputs, listed = self._inputs(name, found.get("inbound_nodes"))
        try:
            with channels_last():
                layer = LAYERS[str(kind)].from_config(dict(fields))
        except Exception as error:
            raise PresetError(
                f"{CONFIG}: the layer {name!r} can't be created by Keras "
                f"{keras.__version__}: {error}"
            ) from error
        return _Node(layer, inputs, listed)

    def _inputs(self, name: str, nodes: Any) -> tuple[list[str], bool]:
        form = f"{CONFIG}: the layer {name!r} must be called once, on layers "
        form += "listed before it."
        check(isinstance(nodes, list) and len(nodes) == 1, form)
        node = nodes[0]
        check(isinstance(node, dict) and set(node) == {"args", "kwargs"}, form)
        check(
            isinstance(node["kwargs"], dict)
            and all(value is None for value in node["kwargs"].values()),
            f"{CONFIG}: the layer {name!r} is called with arguments "
            f"{shown(node['kwargs'])}.",
        )
        args = node["args"]
        check(isinstance(args, list) and len(args) == 1, form)
        listed = isinstance(args[0], list)
        names = []
        for tensor in args[0] if listed else args:
            check(
                isinstance(tensor, dict)
                and set(tensor) == {"class_name", "config"}
                and tensor["class_name"] == "__keras_tensor__"
                and isinstance(tensor["config"], dict),
                f"{CONFIG}: the layer {name!r} is called on {shown(tensor)}, "
                "which is not an output of a layer.",
            )
            history = tensor["config"].get("keras_history")
            check(
                isinstance(history, list)
                and len(history) == 3
                and history[1:] == [0, 0]
                and isinstance(history[0], str)
                and (history[0] == self.input_name or history[0] in self.nodes),
                form,
            )
            names.append(history[0])
        check(names, form)
        return names, listed


def _input(found: Any) -> tuple[str, tuple[int | None, ...]]:
    fields = object_config(found, "InputLayer", "keras.layers", None)
    shape = fields.get("batch_shape")
    check(
        isinstance(shape, list)
        and len(shape) == 4
        and all(v is None or is_int(v, 1, LARGEST) for v in shape)
        and shape[0] is None
        and shape[-1] is not None,
        f"{CONFIG}: the input must have the shape [null, height, width, "
        f"channels]. Found: {shown(shape)}",
    )
    plain = (None, False, True)
    check(
        fields.get("dtype") == "float32"
        and not found.get("inbound_nodes")
        and all(
            any(value is p for p in plain)
            for key, value in fields.items()
            if key not in ("batch_shape", "dtype", "name")
        ),
        f"{CONFIG}: the input must be a plain float32 InputLayer.",
    )
    return _name(fields.get("name")), tuple(shape[1:])  # type: ignore


def _keys(fields: dict, what: str, *names: str) -> None:
    unknown = set(fields) - {*names, "name", "trainable"}
    check(
        not unknown and set(names) <= set(fields),
        f"{CONFIG}: {what} must have the entries {names}. Found: "
        f"{shown(sorted(fields))}",
    )


def _name(name: Any) -> str:
    check(
        isinstance(name, str) and re.fullmatch(r"\w[\w.-]{0,199}", name),
        f"{CONFIG}: {shown(name)} is not a valid layer name.",
    )
    return name
