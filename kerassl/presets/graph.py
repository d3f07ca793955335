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
from keras import layers

from kerassl.presets.info import CONFIG, PresetError, check, is_int, is_number

MOST_LAYERS = 4096
LARGEST = 2**16  # of any integer argument
MOST_VALUES = 2**28  # of the output of one layer, of one image


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
                f"[name, 0, 0]. Found: {ends!r:.200}",
            )
        self.output_name = ends[0]

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
            try:
                shape = tuple(node.call(layer.compute_output_shape, shapes))
            except Exception as error:
                raise PresetError(
                    f"{CONFIG}: the layer {name!r} doesn't fit its inputs "
                    f"{[shapes[n] for n in inputs]}: {error}"
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
        """Calls the layers on images, once."""
        tensors = {self.input_name: images}
        for name, node in self.nodes.items():
            tensors[name] = node.call(node.layer, tensors)
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
            f"{CONFIG} names the class {kind!r:.200}, which isn't one of the "
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
            check(
                _is_argument(key, value),
                f"{CONFIG}: the layer {name!r} has {key}={value!r:.200}, which "
                "a preset can't have.",
            )
        inputs, listed = self._inputs(name, found.get("inbound_nodes"))
        try:
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
            f"{node['kwargs']!r:.200}.",
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
                f"{CONFIG}: the layer {name!r} is called on {tensor!r:.200}, "
                "which is no output of a layer.",
            )
            history = tensor["config"].get("keras_history")
            check(
                isinstance(history, list)
                and len(history) == 3
                and history[1:] == [0, 0]
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
    check(isinstance(found, dict), f"Expected a {class_name}, found {found!r}.")
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
        f"The {class_name} has the unknown entries {sorted(unknown)}.",
    )
    module_found = found.get("module")
    check(
        isinstance(module_found, str)
        and re.fullmatch(rf"{re.escape(module)}(\.\w+)*", module_found),
        f"The class {class_name} is said to be of the module "
        f"{module_found!r:.200}, and must be of {module}.",
    )
    check(
        found.get("class_name") == class_name
        and found.get("registered_name") == registered,
        f"Found the class {found.get('class_name')!r:.200}, registered as "
        f"{found.get('registered_name')!r:.200}, instead of {class_name}.",
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
        f"channels]. Found: {shape!r:.200}",
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
        f"{sorted(fields)!r:.200}",
    )


def _name(name: Any) -> str:
    check(
        isinstance(name, str) and re.fullmatch(r"\w[\w.-]{0,199}", name),
        f"{CONFIG}: {name!r:.200} is no name of a layer.",
    )
    return name


def _is_argument(key: str, value: Any) -> bool:
    if key == "dtype":
        return is_float32(value)
    if key == "activation":
        return value is None or value in ACTIVATIONS
    if key.endswith("_initializer"):
        return _is_initializer(value)
    if key.endswith(("_regularizer", "_constraint")) or key == "build_config":
        return value is None
    if key == "axis":
        return value in (-1, [-1])
    if key in ("renorm", "synchronized", "rms_scaling", "keepdims"):
        return value is False
    if key == "data_format":
        return value in (None, "channels_last")
    return _is_bounded(value)


def _is_bounded(value: Any) -> bool:
    """Tells numbers, short strings, and short lists of numbers."""
    if isinstance(value, list):
        return len(value) <= 64 and all(
            _is_bounded(v) and not isinstance(v, str) for v in value
        )
    if isinstance(value, str):
        return len(value) <= 200
    if value is None or isinstance(value, bool):
        return True
    if isinstance(value, int):
        return -LARGEST <= value <= LARGEST
    return is_number(value)


def _is_initializer(value: Any) -> bool:
    if value is None:
        return True
    return (
        isinstance(value, dict)
        and set(value) == set(FLOAT32)
        and value["module"] == "keras.initializers"
        and value["class_name"] in INITIALIZERS
        and value["registered_name"] is None
        and isinstance(value["config"], dict)
        and all(_is_bounded(v) for v in value["config"].values())
    )
