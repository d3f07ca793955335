"""One maker for each kind of layer: what PyTorch computes for it.

A maker takes the layer, the shapes of its inputs and the network's moving
statistics. It returns a function of the pass and of tensors, with channels
second in maps, or `None` to leave the layer to Keras. Some take an option: see
`OVERWRITING`, and `added` padding.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import torch
from keras import layers
from torch.nn import functional

from kerassl.execution import pytorch
from kerassl.execution.batch_norm import (
    BatchNormalization,
    GlobalBatchNormalization,
    shares_statistics,
)
from kerassl.execution.convolution import Conv2D
from kerassl.execution.moving import MovingStatistics
from kerassl.execution.rescaling import Rescaling
from kerassl.layers import ChannelwiseDense

Run = Callable[..., torch.Tensor]
FUNCTIONS: dict[Callable, Callable] = {
    keras.activations.linear: lambda x: x,
    keras.activations.relu: functional.relu,
    keras.activations.sigmoid: torch.sigmoid,
    keras.activations.tanh: torch.tanh,
    keras.activations.silu: functional.silu,
    keras.activations.gelu: functional.gelu,
}


class Pass:
    """One pass of a batch through a network.

    Attributes:
        training: bool.
        shares: bool. Whether devices share batch statistics.
    """

    def __init__(
        self,
        training: bool,
        moving: MovingStatistics,
        known: dict[int, torch.Tensor] | None = None,
    ):
        self.training = training
        self.shares = shares_statistics()
        self._moving = moving
        self._moments: tuple[torch.Tensor, ...] = ()
        self._zeros: Any = None
        self._counts: dict[int, int] = {}
        self._is_traced = torch.compiler.is_compiling()
        self._in_scope = not self._is_traced and moving.in_scope()
        # In a scope variables have other values.
        self._known = {} if known is None or self._in_scope else known

    def value(self, variable: Any, dtype: torch.dtype | None = None) -> Any:
        """Returns the tensor of a layer's variable, or `None`.

        Args:
            variable: `keras.Variable` or `None`.
            dtype: type to cast to, if it has another.
        """
        if variable is None:
            return None
        if self._is_traced:
            found = variable.value
        else:
            # Keras takes 2 microseconds to return it.
            found = self._known.get(id(variable))
            if found is None:
                found = variable.value
                # In half precision it may be a copy for this pass.
                if isinstance(found, torch.nn.Parameter):
                    self._known[id(variable)] = found
        return found if dtype is None else cast(found, dtype)

    def moments(
        self, index: int, x: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns zeros for the mean and variance of a layer's inputs."""
        if not self._moments:
            self._zeros, self._moments = self._moving.moments(x.device)
        self._counts[index] = x.numel() // x.shape[1]
        half = len(self._moments) // 2
        return self._moments[index], self._moments[half + index]

    def finish(self) -> None:
        """Moves the moving statistics."""
        if self._counts:
            scoped = self._in_scope
            if self._is_traced:
                scoped = self._moving.in_scope()
            self._moving.move(self._zeros, self._counts, self.value, scoped)


def torch_dtype(name: str) -> torch.dtype:
    """Returns PyTorch's dtype of Keras's name."""
    return getattr(torch, name)


def cast(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Casts where that changes anything."""
    return x if x.dtype == dtype else x.to(dtype)


def convolution(
    layer: Any, shapes: list, moving: Any, added: Sequence[int] = (0, 0)
) -> Run | None:
    """Makes a convolution, with added padding if it has none itself."""
    function = FUNCTIONS.get(layer.activation)
    if function is None:
        return None
    kernel, bias = layer.kernel, layer.bias
    padding: Any = tuple(added)
    if layer.padding == "same":
        padding = pytorch.same_padding(
            layer.kernel_size, layer.strides, layer.dilation_rate
        )
    options = (layer.strides, padding, layer.dilation_rate, layer.groups)
    dtype = torch_dtype(layer.compute_dtype)

    def run(state: Pass, x: torch.Tensor) -> torch.Tensor:
        y = pytorch.convolve(
            x, state.value(kernel), *options, state.value(bias, dtype)
        )
        return function(y)

    return run


def _transposed_convolution(
    layer: Any, shapes: list, moving: Any
) -> Run | None:
    function = FUNCTIONS.get(layer.activation)
    excess = [k - s for k, s in zip(layer.kernel_size, layer.strides)]
    if (
        function is None
        or min(excess) < 0
        or set(layer.dilation_rate) != {1}
        or layer.output_padding is not None
    ):
        return None
    padding = (0, 0)
    if layer.padding == "same":
        if any(more % 2 for more in excess):
            return None
        padding = (excess[0] // 2, excess[1] // 2)
    kernel, bias = layer.kernel, layer.bias
    strides, dtype = layer.strides, torch_dtype(layer.compute_dtype)

    def run(state: Pass, x: torch.Tensor) -> torch.Tensor:
        weight = state.value(kernel, dtype).permute(3, 2, 0, 1)
        offset = state.value(bias, dtype)
        return function(
            functional.conv_transpose2d(x, weight, offset, strides, padding)
        )

    return run


def _batch_norm(
    layer: Any, shapes: list, moving: MovingStatistics
) -> Run | None:
    rank = len(shapes[0])
    is_last = layer.axis % rank == rank - 1
    if not is_last or rank not in (2, 4) or layer.renorm:
        return None
    index = moving.add(layer)
    epsilon, dtype = layer.epsilon, torch_dtype(layer.compute_dtype)

    def run(state: Pass, x: torch.Tensor) -> torch.Tensor:
        scale, offset = state.value(layer.gamma), state.value(layer.beta)
        in_training = state.training and layer.trainable
        if not in_training:
            y = pytorch.normalize_by(
                x,
                state.value(layer.moving_mean),
                state.value(layer.moving_variance),
                scale,
                offset,
                epsilon,
                will_move=layer.trainable,
            )
        elif (
            (state.shares and layer.over_devices)
            or x.numel() <= x.shape[1]
            or x.dtype == torch.float64
            or layer.variable_dtype != "float32"
        ):
            y = layer.call(pytorch.channels_last(x), training=True)
            return pytorch.channels_second(y)
        else:
            moments = state.moments(index, x)
            y = pytorch.normalize(x, *moments, scale, offset, epsilon)
        return cast(y, dtype)

    return run


def _layer_norm(layer: Any, shapes: list, moving: Any) -> Run | None:
    rank = len(shapes[0])
    axes = [axis % rank for axis in layer.axis]
    if axes != [rank - 1] or layer.rms_scaling:
        return None
    epsilon, dtype = layer.epsilon, torch_dtype(layer.compute_dtype)

    def run(state: Pass, x: torch.Tensor) -> torch.Tensor:
        wide = pytorch.wide_dtype(x)
        scale = state.value(layer.gamma, wide)
        offset = state.value(layer.beta, wide)
        x = cast(pytorch.channels_last(x), wide)
        y = functional.layer_norm(x, x.shape[-1:], scale, offset, epsilon)
        return pytorch.channels_second(cast(y, dtype))

    return run


def _dense(layer: Any, shapes: list, moving: Any) -> Run | None:
    function = FUNCTIONS.get(layer.activation)
    if function is None or len(shapes[0]) > 3:
        return None
    kernel, bias = layer.kernel, layer.bias
    dtype = torch_dtype(layer.compute_dtype)

    def run(state: Pass, x: torch.Tensor) -> torch.Tensor:
        weight = state.value(kernel, dtype).t()
        return function(functional.linear(x, weight, state.value(bias, dtype)))

    return run


def _channelwise_dense(layer: Any, shapes: list, moving: Any) -> Run:
    kernel, bias = layer.kernel, layer.bias
    dtype = torch_dtype(layer.compute_dtype)

    def run(state: Pass, x: torch.Tensor) -> torch.Tensor:
        rows = x.flatten(2).transpose(0, 1)
        y = torch.baddbmm(
            state.value(bias, dtype), rows, state.value(kernel, dtype)
        )
        return y.transpose(0, 1).unflatten(2, x.shape[2:])

    return run


def _relu(
    layer: Any, shapes: list, moving: Any, overwrite: bool = False
) -> Run | None:
    if layer.max_value is not None or layer.negative_slope or layer.threshold:
        return None
    return lambda state, x: functional.relu(x, inplace=overwrite)


def _leaky_relu(layer: Any, shapes: list, moving: Any) -> Run:
    slope = layer.negative_slope
    return lambda state, x: functional.leaky_relu(x, slope)


def _activation(
    layer: Any, shapes: list, moving: Any, overwrite: bool = False
) -> Run | None:
    function = FUNCTIONS.get(layer.activation)
    if function is functional.relu:
        return lambda state, x: functional.relu(x, inplace=overwrite)
    # Other gradients need what came in.
    return None if function is None else lambda state, x: function(x)


def _pool(layer: Any, shapes: list, moving: Any) -> Run:
    size, strides = tuple(layer.pool_size), tuple(layer.strides)
    same, is_max = layer.padding == "same", type(layer) is layers.MaxPooling2D

    def run(state: Pass, x: torch.Tensor) -> torch.Tensor:
        padding: Any = (0, 0)
        if same:
            x, padding = pytorch.pad_same(x, size, strides, mode="replicate")
        if is_max:
            return functional.max_pool2d(x, size, strides, padding)
        return functional.avg_pool2d(
            x, size, strides, padding, count_include_pad=False
        )

    return run


def _global_pool(layer: Any, shapes: list, moving: Any) -> Run:
    keep = layer.keepdims
    axes = (2, 3) if len(shapes[0]) == 4 else (1,)
    if type(layer) in (layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D):
        return lambda state, x: x.amax(axes, keepdim=keep)
    return lambda state, x: x.mean(axes, keepdim=keep)


def _zero_padding(layer: Any, shapes: list, moving: Any) -> Run:
    (top, bottom), (left, right) = layer.padding
    return lambda state, x: functional.pad(x, (left, right, top, bottom))


def _cropping(layer: Any, shapes: list, moving: Any) -> Run:
    is_row = type(layer) is layers.Cropping1D
    cropping = [layer.cropping] if is_row else layer.cropping

    def run(state: Pass, x: torch.Tensor) -> torch.Tensor:
        for axis, (before, after) in enumerate(cropping, 1 if is_row else 2):
            x = x.narrow(axis, before, x.shape[axis] - before - after)
        return x

    return run


def _rescaling(layer: Any, shapes: list, moving: Any) -> Run | None:
    layout = keras.config.image_data_format()
    if len(shapes[0]) != 4 or layout != "channels_last":
        return None
    if {np.size(layer.scale), np.size(layer.offset)} - {1, shapes[0][-1]}:
        return None  # A value for each pixel.
    dtype = torch_dtype(layer.compute_dtype)
    scale, offset = (
        keras.ops.convert_to_tensor(x, layer.compute_dtype).reshape(-1, 1, 1)
        for x in (layer.scale, layer.offset)
    )
    return lambda state, x: torch.addcmul(offset, cast(x, dtype), scale)


def _add(
    layer: Any, shapes: list, moving: Any, overwrite: bool = False
) -> Run | None:
    if len({len(shape) for shape in shapes}) != 1:
        return None
    # Otherwise the sum may be larger than the first input, or of a wider dtype.
    alike = len({tuple(shape) for shape in shapes}) == 1 and layer.autocast

    def run(state: Pass, *inputs: torch.Tensor) -> torch.Tensor:
        total = inputs[0]
        for x in inputs[1:]:
            total = total.add_(x) if overwrite and alike else total + x
        return total

    return run


def _concatenate(layer: Any, shapes: list, moving: Any) -> Run:
    rank = len(shapes[0])
    axis = layer.axis % rank
    if rank == 4:
        axis = (0, 2, 3, 1)[axis]
    return lambda state, *inputs: torch.cat(inputs, axis)


def _reshape(layer: Any, shapes: list, moving: Any) -> Run:
    shape = getattr(layer, "target_shape", (-1,))

    def run(state: Pass, x: torch.Tensor) -> torch.Tensor:
        x = pytorch.channels_last(x)
        return pytorch.channels_second(x.reshape(x.shape[0], *shape))

    return run


def _dropout(layer: Any, shapes: list, moving: Any) -> Run:
    def run(state: Pass, x: torch.Tensor) -> torch.Tensor:
        if not state.training or not layer.rate:
            return x
        y = layer(pytorch.channels_last(x), training=True)
        return pytorch.channels_second(y)

    return run


def _identity(layer: Any, shapes: list, moving: Any) -> Run:
    return lambda state, x: x


MAKERS: dict[type, Callable[[Any, list, MovingStatistics], Run | None]] = {
    # As they are lent.
    Conv2D: convolution,
    Rescaling: _rescaling,
    BatchNormalization: _batch_norm,
    GlobalBatchNormalization: _batch_norm,
    layers.Conv2DTranspose: _transposed_convolution,
    layers.LayerNormalization: _layer_norm,
    layers.Dense: _dense,
    ChannelwiseDense: _channelwise_dense,
    layers.ReLU: _relu,
    layers.LeakyReLU: _leaky_relu,
    layers.Activation: _activation,
    layers.MaxPooling2D: _pool,
    layers.AveragePooling2D: _pool,
    layers.GlobalAveragePooling1D: _global_pool,
    layers.GlobalAveragePooling2D: _global_pool,
    layers.GlobalMaxPooling1D: _global_pool,
    layers.GlobalMaxPooling2D: _global_pool,
    layers.ZeroPadding2D: _zero_padding,
    layers.Cropping1D: _cropping,
    layers.Cropping2D: _cropping,
    layers.Add: _add,
    layers.Concatenate: _concatenate,
    layers.Flatten: _reshape,
    layers.Reshape: _reshape,
    layers.Dropout: _dropout,
    layers.Identity: _identity,
}

# What takes `overwrite`, which makes it write into its first input; and what
# makes new tensors that its gradients don't need.
OVERWRITING = (layers.ReLU, layers.Activation, layers.Add)
OVERWRITTEN = (BatchNormalization, GlobalBatchNormalization, layers.Add)
