"""Published graphs of core Keras layers, checked and rebuilt by us.

`config.json` of somebody else is data here. Keras's own reader would build any
registered class that it names; this one knows a few layers, checks their
arguments, and counts the weights before any is made.
"""

import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers

from kerassl.image_format import channels_last
from kerassl.presets.info import CONFIG, PresetError, check
from kerassl.reading import (
    FLAG,
    Form,
    either,
    integer,
    is_int,
    items,
    number,
    one_of,
    optional,
    shown,
)

MOST_LAYERS = 4096
# Keras builds graphs by a function that calls itself for a layer's first input,
# then for others. Python stops that at 1000, the caller's own among them.
DEEPEST = 850
LARGEST = 2**16  # of any integer argument
MOST_VALUES = 2**28  # of the output of one layer, of one image


# How Keras and KerasHub name the modules of classes that they export: by the
# public one, or by the file.
MODULES = {
    "keras": r"keras|keras\.models|keras\.src\.models\.functional",
    "keras.layers": r"keras\.layers",
    "keras_hub": r"keras_hub\.src(\.[a-z_0-9]+)+|keras_hub\.(models|layers)",
}


class Weight(NamedTuple):
    """A weight of a published model.

    Attributes:
        place: str, its data set in the HDF5 file.
        name: str, the end of the variable's path.
        shape: tuple of ints.
    """

    place: str
    name: str
    shape: tuple[int, ...]


class Layout(NamedTuple):
    """What an architecture makes of images of one shape.

    Attributes:
        weights: list of `Weight`, in the order of the model's.
        output_shape: tuple of ints and `None`, with the batch.
    """

    weights: list[Weight]
    output_shape: tuple[int | None, ...]


class Architecture:
    """A published model, checked and not built yet.

    Args:
        config: what `config.json` holds.

    Raises:
        PresetError: if it is anything but this kind of model, or an argument
            is out of its bounds.
    """

    class_name: str
    image_shape: tuple[int | None, ...]

    def __init__(self, config: Any):
        raise NotImplementedError

    def layout(self, image_shape: tuple[int | None, ...]) -> Layout:
        """Returns the weights for images of a shape, without making any.

        Raises:
            PresetError: if the architecture doesn't fit such images.
        """
        raise NotImplementedError

    def apply(self, images: Any) -> Any:
        """Makes the layers, and calls them on images, once.

        Args:
            images: Keras tensor `(N, H, W, C)`.

        Returns:
            A Keras tensor.
        """
        raise NotImplementedError

    def model(self) -> keras.Model:
        """Returns the published model, with new weights."""
        raise NotImplementedError


Shapes = dict[str, tuple[int, ...]]


def _conv(layer: Any, shape: tuple) -> Shapes:
    inputs = shape[-1] // layer.groups
    kernel = (*layer.kernel_size, inputs, layer.filters)
    return _with_bias(layer, kernel, layer.filters)


def _depthwise(layer: Any, shape: tuple) -> Shapes:
    kernel = (*layer.kernel_size, shape[-1], layer.depth_multiplier)
    return _with_bias(layer, kernel, shape[-1] * layer.depth_multiplier)


def _separable(layer: Any, shape: tuple) -> Shapes:
    depthwise = (*layer.kernel_size, shape[-1], layer.depth_multiplier)
    pointwise = (1, 1, shape[-1] * layer.depth_multiplier, layer.filters)
    kernels = {"depthwise_kernel": depthwise, "pointwise_kernel": pointwise}
    return kernels | ({"bias": (layer.filters,)} if layer.use_bias else {})


def _dense(layer: Any, shape: tuple) -> Shapes:
    return _with_bias(layer, (shape[-1], layer.units), layer.units)


def _with_bias(layer: Any, kernel: tuple[int, ...], units: int) -> Shapes:
    return {"kernel": kernel} | ({"bias": (units,)} if layer.use_bias else {})


def _norm(layer: Any, shape: tuple) -> Shapes:
    names = [
        *(["gamma"] if layer.scale else []),
        *(["beta"] if layer.center else []),
    ]
    if isinstance(layer, layers.BatchNormalization):
        names += ["moving_mean", "moving_variance"]
    return {name: (shape[-1],) for name in names}


# Layers with weights: their name in the HDF5 file, and the weights.
WEIGHTED: dict[type, tuple[str, Callable[[Any, tuple], Shapes]]] = {
    layers.Conv2D: ("conv2d", _conv),
    layers.DepthwiseConv2D: ("depthwise_conv2d", _depthwise),
    layers.SeparableConv2D: ("separable_conv2d", _separable),
    layers.Dense: ("dense", _dense),
    layers.BatchNormalization: ("batch_normalization", _norm),
    layers.LayerNormalization: ("layer_normalization", _norm),
    layers.GroupNormalization: ("group_normalization", _norm),
}
WEIGHTLESS = (
    layers.Activation,
    layers.Add,
    layers.Average,
    layers.AveragePooling2D,
    layers.Concatenate,
    layers.Cropping1D,
    layers.Cropping2D,
    layers.Flatten,
    layers.GlobalAveragePooling1D,
    layers.GlobalAveragePooling2D,
    layers.GlobalMaxPooling1D,
    layers.GlobalMaxPooling2D,
    layers.Identity,
    layers.LeakyReLU,
    layers.MaxPooling2D,
    layers.Maximum,
    layers.Multiply,
    layers.ReLU,
    layers.Rescaling,
    layers.Reshape,
    layers.UpSampling2D,
    layers.ZeroPadding2D,
)
LAYERS: dict[str, Any] = {c.__name__: c for c in (*WEIGHTED, *WEIGHTLESS)}
ACTIVATIONS = (
    "elu",
    "gelu",
    "hard_sigmoid",
    "hard_silu",
    "hard_swish",
    "leaky_relu",
    "linear",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "swish",
    "tanh",
)
INITIALIZERS = (
    "Constant",
    "GlorotNormal",
    "GlorotUniform",
    "HeNormal",
    "HeUniform",
    "LecunNormal",
    "LecunUniform",
    "Ones",
    "Orthogonal",
    "RandomNormal",
    "RandomUniform",
    "TruncatedNormal",
    "VarianceScaling",
    "Zeros",
)
FLOAT32 = {
    "module": "keras",
    "class_name": "DTypePolicy",
    "config": {"name": "float32"},
    "registered_name": None,
}

_SIZE = integer(1, LARGEST)
_SIZES = either(_SIZE, items(_SIZE, 1, 2))
_MARGIN = integer(0, LARGEST)
_MARGINS = either(_MARGIN, items(either(_MARGIN, items(_MARGIN, 2, 2)), 2, 2))
_NUMBER = number(-1e30, 1e30)
_NUMBERS = either(_NUMBER, items(_NUMBER, 1, 4096))
_NOTHING = one_of(None)
_OFF = one_of(False)
_INITIALIZER = Form(lambda v: _is_initializer(v), "a known initializer")
# What each argument may be, of whichever layer. All others are refused: some,
# such as `lora_rank`, add weights.
ARGUMENTS: dict[str, Form] = {
    "activation": optional(one_of(*ACTIVATIONS)),
    "axis": either(one_of(-1), items(one_of(-1), 1, 1)),  # The channels.
    "center": FLAG,
    "cropping": _MARGINS,
    "data_format": optional(one_of("channels_last")),
    "depth_multiplier": _SIZE,
    "dilation_rate": _SIZES,
    "dtype": Form(lambda v: is_float32(v), "float32"),
    "epsilon": number(0, 1),
    "filters": _SIZE,
    "groups": _SIZE,
    "interpolation": one_of("nearest", "bilinear", "bicubic"),
    "keepdims": FLAG,
    "kernel_size": _SIZES,
    "max_value": optional(_NUMBER),
    "momentum": number(0, 1),
    "name": Form(lambda v: isinstance(v, str), "a name"),  # See `_name`.
    "negative_slope": _NUMBER,
    "offset": _NUMBERS,
    "padding": either(one_of("valid", "same"), _MARGINS),
    "pool_size": _SIZES,
    "quantization_config": _NOTHING,
    "renorm": _OFF,
    "renorm_clipping": _NOTHING,
    "renorm_momentum": number(0, 1),
    "rms_scaling": _OFF,
    "scale": either(FLAG, _NUMBERS),
    "size": _SIZES,
    "strides": optional(_SIZES),
    "synchronized": _OFF,
    "target_shape": items(integer(-1, MOST_VALUES), 0, 8),
    "threshold": _NUMBER,
    "trainable": FLAG,
    "units": _SIZE,
    "use_bias": FLAG,
}
# By the end of an argument's name.
ENDINGS: dict[str, Form] = {
    "_initializer": optional(_INITIALIZER),
    "_regularizer": _NOTHING,
    "_constraint": _NOTHING,
}
_AXES = optional(either(integer(-8, 8), items(integer(-8, 8), 0, 8)))
INITIALIZER_ARGUMENTS: dict[str, Form] = {
    "distribution": one_of(
        "normal", "truncated_normal", "untruncated_normal", "uniform"
    ),
    "gain": _NUMBER,
    "input_axes": _AXES,
    "maxval": _NUMBER,
    "mean": _NUMBER,
    "minval": _NUMBER,
    "mode": one_of("fan_in", "fan_out", "fan_avg"),
    "output_axes": _AXES,
    "scale": number(0, 1e30),
    "seed": optional(integer(0, 2**32 - 1)),
    "stddev": number(0, 1e30),
    "value": _NUMBER,
}


class _Node(NamedTuple):
    layer: Any  # not built
    inputs: list[str]
    listed: bool

    def call(self, function: Callable, values: dict[str, Any]) -> Any:
        found = [values[name] for name in self.inputs]
        return function(found if self.listed else found[0])


class Graph(Architecture):
    """A Functional model of core Keras layers, none of them built yet.

    Args:
        config: what `config.json` holds.

    Raises:
        PresetError: if there is anything but the layers of `LAYERS`, each
            called once, with bounded arguments.
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
            f"{CONFIG} has more than {DEEPEST} layers, one after the other.",
        )

    def _depth(self) -> int:
        """Returns how often Keras's function is inside itself."""
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
        """Returns the weights for images of a shape, without making any.

        Raises:
            PresetError: if the layers don't fit the images or each other, or
                the output of one is too large.
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
                    f"{CONFIG}: {name!r} needs one input of known channels.",
                )
                number = counts[kind] = counts.get(kind, -1) + 1
                place = kind if number == 0 else f"{kind}_{number}"
                found += [
                    Weight(f"layers/{place}/vars/{i}", f"{name}/{key}", size)
                    for i, (key, size) in enumerate(
                        weights_of(layer, shape).items()
                    )
                ]
            if isinstance(layer, layers.Rescaling):
                # Others would make more channels, of which Keras doesn't know.
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
        """Makes the layers anew, and calls them on images, once."""
        tensors = {self.input_name: images}
        for name, node in self.nodes.items():
            layer = type(node.layer).from_config(node.layer.get_config())
            tensors[name] = node.call(layer, tensors)
        return tensors[self.output_name]

    def model(self) -> keras.Model:
        """Returns the published model, with new weights."""
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
            f"{CONFIG}: the name of the layer {name!r} isn't its own.",
        )
        for key, value in fields.items():
            _check_argument(name, key, value)
        inputs, listed = self._inputs(name, found.get("inbound_nodes"))
        try:
            with channels_last():
                layer = LAYERS[str(kind)].from_config(dict(fields))
        except Exception as error:
            raise PresetError(
                f"{CONFIG}: the layer {name!r} can't be made by Keras "
                f"{keras.__version__}: {error}"
            ) from error
        return _Node(layer, inputs, listed)

    def _inputs(self, name: str, nodes: Any) -> tuple[list[str], bool]:
        form = f"{CONFIG}: the layer {name!r} must be called once, on layers "
        form += "that come before it."
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


def check_order(model: Any, expected: list[Weight]) -> None:
    """Refuses a model whose weights aren't the expected ones, in their order.

    Raises:
        PresetError: naming the first that is another.
    """
    found = [(v.path, tuple(v.shape)) for v in model.weights]
    check(
        len(found) == len(expected),
        f"{model.name} has {len(found)} weights, and {len(expected)} were "
        "expected.",
    )
    for (path, shape), weight in zip(found, expected):
        check(
            f"/{path}".endswith(f"/{weight.name}") and shape == weight.shape,
            f"{model.name} has the weight {path!r} {shape} where "
            f"{weight.name!r} {weight.shape} was expected. This Keras, "
            f"{keras.__version__}, or this KerasHub orders weights in another "
            "way; try an older one.",
        )


def object_config(
    found: Any, class_name: Any, module: str, registered: str | None
) -> dict[str, Any]:
    """Returns the arguments of a serialized object of a known class.

    Args:
        found: what a JSON file holds.
        class_name: str, the class that it must be.
        module: str, the package or module that it must be of.
        registered: str or `None`, the name that it must be registered by.

    Returns:
        A dict.

    Raises:
        PresetError: if it is another class, or of another module.
    """
    check(
        isinstance(found, dict),
        f"Expected a {class_name}, found {shown(found)}.",
    )
    unknown = set(found) - {
        "module",
        "class_name",
        "config",
        "registered_name",
        "name",
        "inbound_nodes",
    }
    check(
        not unknown,
        f"The {class_name} has the unknown entries {shown(sorted(unknown))}.",
    )
    module_found = found.get("module")
    check(
        isinstance(module_found, str)
        and re.fullmatch(MODULES[module], module_found),
        f"The class {class_name} is said to be of the module "
        f"{shown(module_found)}, and must be of {module}.",
    )
    check(
        found.get("class_name") == class_name
        and found.get("registered_name") == registered,
        f"Found the class {shown(found.get('class_name'))}, registered as "
        f"{shown(found.get('registered_name'))}, instead of {class_name}.",
    )
    fields = found.get("config")
    check(isinstance(fields, dict), f"The {class_name} has no `config`.")
    return fields  # type: ignore[return-value]


def is_float32(value: Any) -> bool:
    """Tells how Keras writes the dtype float32."""
    return value in ("float32", FLOAT32)


def _input(found: Any) -> tuple[str, tuple[int | None, ...]]:
    fields = object_config(found, "InputLayer", "keras.layers", None)
    shape = fields.get("batch_shape")
    check(
        isinstance(shape, list)
        and len(shape) == 4
        and all(v is None or is_int(v, 1, LARGEST) for v in shape)
        and shape[0] is None
        and shape[-1] is not None,
        f"{CONFIG}: the input must be of the shape [null, height, width, "
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
        f"{CONFIG}: the input must be a plain one of float32.",
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
        f"{CONFIG}: {shown(name)} is not the name of a layer.",
    )
    return name


def _check_argument(name: str, key: str, value: Any) -> None:
    ending = re.sub("^.*(?=_)", "", key)
    form = ARGUMENTS.get(key) or ENDINGS.get(ending)
    if form is None or not form.is_valid(value):
        known = f"must be {form.words}" if form else "a preset can't have"
        raise PresetError(
            f"{CONFIG}: the layer {name!r} has {shown(key)[1:-1]}="
            f"{shown(value)}, which {known}."
        )


def _is_initializer(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and set(value) == set(FLOAT32)
        and value["module"] == "keras.initializers"
        and value["class_name"] in INITIALIZERS
        and value["registered_name"] is None
        and isinstance(value["config"], dict)
        and all(
            key in INITIALIZER_ARGUMENTS
            and INITIALIZER_ARGUMENTS[key].is_valid(argument)
            for key, argument in value["config"].items()
        )
    )
