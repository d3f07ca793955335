"""A layer that connects all positions of a feature map, by channel."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="kerassl")
class ChannelwiseDense(keras.layers.Layer):
    """Dense connections between the positions of each channel.

    Each output position sees all positions of its own channel, and no other
    channel. Unlike a convolution it carries information across the whole image,
    with `D * (h * w)**2` weights where a dense layer would have
    `D**2 * (h * w)**2`. It takes the arguments of `keras.layers.Layer`.

    Input and output shape: `(N, h, w, D)`.

    Raises:
        ValueError: in `build`, if a size of the map is unknown.

    Example:
    ```python
    layer = kerassl.layers.ChannelwiseDense()
    maps = layer(keras.random.normal((32, 4, 4, 512)))
    ```

    Reference:
        - [Pathak et al., 2016](https://arxiv.org/abs/1604.07379), section 3.1
    """

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Creates a matrix and a bias for each channel."""
        _, height, width, channels = input_shape
        if height is None or width is None or channels is None:
            raise ValueError(
                "ChannelwiseDense needs maps of a known size. "
                f"Received shape: {tuple(input_shape)}"
            )
        positions = height * width
        self.kernel = self.add_weight(
            name="kernel",
            shape=(channels, positions, positions),
            initializer=keras.initializers.RandomNormal(stddev=positions**-0.5),
        )
        self.bias = self.add_weight(
            name="bias", shape=(channels, 1, positions), initializer="zeros"
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
