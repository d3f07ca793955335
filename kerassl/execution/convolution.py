"""Convolutions as they run during a step."""

from typing import Any

import keras
from keras import ops


class Conv2D(keras.layers.Conv2D):
    """Keras's convolution without its copy of the input, on PyTorch.

    Keras copies it to a layout of channels first, and then back to channels
    last. No model contains this layer: `lent` swaps it in.
    """

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        """Convolves maps `(N, H, W, C)` in the memory where they are."""
        if self.data_format != "channels_last":
            return super().convolution_op(inputs, kernel)
        from kerassl.execution import pytorch

        y = pytorch.convolve(
            pytorch.channels_second(inputs),
            ops.convert_to_tensor(kernel),
            self.strides,
            None if self.padding == "same" else (0, 0),
            self.dilation_rate,
            self.groups,
        )
        return pytorch.channels_last(y)
