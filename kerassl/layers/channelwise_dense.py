"""The layer that connects all places of a feature map, channel by channel."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="kerassl")
class ChannelwiseDense(keras.layers.Layer):
    """Connects each channel's map fully to itself, and to no other channel.

    It carries what is known at one place of the image to all others, as a
    convolution can't, with `D * (h * w)**2` weights where a dense layer would
    have `D**2` times `(h * w)**2`. It takes the arguments of
    `keras.layers.Layer`.

    Input shape: `(N, h, w, D)`. Output shape: the same.

    Example:
    ```python
    layer = kerassl.layers.ChannelwiseDense()
    maps = layer(keras.random.normal((32, 4, 4, 512)))
    ```

    Reference:
        - [Pathak et al., 2016](https://arxiv.org/abs/1604.07379), section 3.1
    """

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Creates a matrix and an offset for each channel."""
        _, height, width, channels = input_shape
        if height is None or width is None or channels is None:
            raise ValueError(
                "ChannelwiseDense needs maps of a known size. "
                f"Received shape: {tuple(input_shape)}"
            )
        places = height * width
        self.kernel = self.add_weight(
            name="kernel",
            shape=(channels, places, places),
            initializer=keras.initializers.RandomNormal(stddev=places**-0.5),
        )
        self.bias = self.add_weight(
            name="bias", shape=(channels, 1, places), initializer="zeros"
        )

    def call(self, inputs: Any) -> Any:
        """Maps `(N, h, w, D)` to the same shape."""
        _, height, width, channels = inputs.shape
        x = ops.reshape(inputs, (-1, height * width, channels))
        x = ops.matmul(ops.transpose(x, (2, 0, 1)), self.kernel) + self.bias
        x = ops.transpose(x, (1, 2, 0))
        return ops.reshape(x, (-1, height, width, channels))

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple:
        """Returns the input's shape."""
        return tuple(input_shape)
