"""The core Keras layers that a graph may contain, and their bounds."""

import re
from collections.abc import Callable
from typing import Any

from keras import layers

from kerassl.presets.format.architecture import FLOAT32, is_float32
from kerassl.presets.format.info import CONFIG, PresetError
from kerassl.reading import (
    FLAG,
    Form,
    either,
    integer,
    items,
    number,
    one_of,
    optional,
    shown,
)

LARGEST = 2**16  # of any integer argument
MOST_VALUES = 2**28  # in the output of one layer, for one image

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


# Layers with weights: the name of their HDF5 group, and their weights' shapes.
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
_SIZE = integer(1, LARGEST)
_SIZES = either(_SIZE, items(_SIZE, 1, 2))
_MARGIN = integer(0, LARGEST)
_MARGINS = either(_MARGIN, items(either(_MARGIN, items(_MARGIN, 2, 2)), 2, 2))
_NUMBER = number(-1e30, 1e30)
_NUMBERS = either(_NUMBER, items(_NUMBER, 1, 4096))
_NOTHING = one_of(None)
_OFF = one_of(False)
_INITIALIZER = Form(lambda v: _is_initializer(v), "a known initializer")
# The allowed values of each argument, in any layer. Other arguments are
# refused: some, such as `lora_rank`, add weights.
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
    "name": Form(lambda v: isinstance(v, str), "a name"),  # `Graph` checks it.
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
# The same, by the end of an argument's name.
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


def check_argument(name: str, key: str, value: Any) -> None:
    """Refuses an argument that is unknown or out of bounds.

    Args:
        name: str, the layer's name, for the message.
        key: str, the argument's name.
        value: the argument's value, from JSON.

    Raises:
        PresetError: naming the layer and the argument.
    """
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
