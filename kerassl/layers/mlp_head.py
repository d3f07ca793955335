"""The head after an encoder: projector or predictor."""

from collections.abc import Sequence
from typing import Any

import keras

ACTIVATIONS = ("relu", "gelu")
OUTPUT_NORMALIZATIONS = (None, "batch", "batch_no_bias", "batch_no_affine")


@keras.saving.register_keras_serializable(package="kerassl")
class MLPHead(keras.layers.Layer):
    """Dense layers with batch normalization and an activation in between.

    It covers the heads of all methods here, which choose the arguments to match
    their authors' code. SimCLR's projector, for example, is
    `MLPHead((2048, 128), output_normalization="batch_no_bias")`.

    Args:
        units: sequence of positive ints, the width of each dense layer; the
            last is the output.
        hidden_normalization: bool. Batch normalization before each activation.
        hidden_bias: bool. A bias in the hidden dense layers. It has no effect
            on the output if batch normalization follows.
        output_bias: bool. A bias in the last dense layer.
        output_normalization: the layer after the last dense layer: `None`,
            `"batch"` (batch normalization with scale and offset),
            `"batch_no_bias"` (only a scale) or `"batch_no_affine"` (neither).
        hidden_activation: `"relu"` or `"gelu"`.
        initial_std: float > 0, the standard deviation of the truncated normal
            numbers that dense layers start from; by default they start as
            Keras's, with Glorot's.
        **kwargs: the arguments of `keras.layers.Layer`.

    Input shape: `(N, C)`. Output shape: `(N, units[-1])`.

    Raises:
        ValueError: if `units` is empty or not positive, or
            `output_normalization` or `hidden_activation` is none of these.

    Example:
    ```python
    head = kerassl.layers.MLPHead((512, 128), output_normalization="batch")
    projections = head(keras.random.normal((32, 512)), training=True)
    ```
    """

    def __init__(
        self,
        units: Sequence[int],
        *,
        hidden_normalization: bool = True,
        hidden_bias: bool = False,
        output_bias: bool = False,
        output_normalization: str | None = None,
        hidden_activation: str = "relu",
        initial_std: float | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if not units or any(int(width) < 1 for width in units):
            raise ValueError(
                "`units` must hold at least one positive width. "
                f"Received: units={units}"
            )
        if output_normalization not in OUTPUT_NORMALIZATIONS:
            raise ValueError(
                f"`output_normalization` must be one of "
                f"{OUTPUT_NORMALIZATIONS}. Received: {output_normalization!r}"
            )
        if hidden_activation not in ACTIVATIONS:
            raise ValueError(
                f"`hidden_activation` must be one of {ACTIVATIONS}. "
                f"Received: {hidden_activation!r}"
            )
        self.units = tuple(int(width) for width in units)
        self.hidden_normalization = hidden_normalization
        self.hidden_bias = hidden_bias
        self.output_bias = output_bias
        self.output_normalization = output_normalization
        # A layer with an `activation` would be recomputed as a whole by
        # `keras.RematScope("activations")`.
        self.hidden_activation = hidden_activation
        self.initial_std = initial_std

        # === Layers ===
        stack: list[keras.layers.Layer] = []
        for i, width in enumerate(self.units[:-1], start=1):
            stack.append(self._dense(width, hidden_bias, f"dense_{i}"))
            if hidden_normalization:
                stack.append(self._batch_normalization(f"norm_{i}"))
            stack.append(self._activation(f"{hidden_activation}_{i}"))
        stack.append(self._dense(self.units[-1], output_bias, "dense_output"))
        if output_normalization is not None:
            stack.append(
                self._batch_normalization(
                    "norm_output",
                    scale=output_normalization != "batch_no_affine",
                    center=output_normalization == "batch",
                )
            )
        self.stack = stack

    def _dense(self, units: int, bias: bool, name: str) -> keras.layers.Dense:
        start: Any = "glorot_uniform"
        if self.initial_std:
            start = keras.initializers.TruncatedNormal(stddev=self.initial_std)
        return keras.layers.Dense(
            units,
            use_bias=bias,
            kernel_initializer=start,
            name=name,
            dtype=self.dtype_policy,
        )

    def _activation(self, name: str) -> keras.layers.Layer:
        if self.hidden_activation == "relu":
            return keras.layers.ReLU(name=name, dtype=self.dtype_policy)
        return keras.layers.Activation(
            self.hidden_activation, name=name, dtype=self.dtype_policy
        )

    def _batch_normalization(
        self, name: str, **kwargs: Any
    ) -> keras.layers.BatchNormalization:
        # Keras's defaults (0.99, 1e-3) differ from the authors' code and are
        # bad for the few steps of a small run.
        return keras.layers.BatchNormalization(
            momentum=0.9,
            epsilon=1e-5,
            name=name,
            dtype=self.dtype_policy,
            **kwargs,
        )

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Creates the weights for inputs of shape `(N, C)`."""
        shape = tuple(input_shape)
        for layer in self.stack:
            layer.build(shape)
            shape = layer.compute_output_shape(shape)

    def hidden_layers(self, count: int) -> list[keras.layers.Layer]:
        """Returns the layers of the first hidden layers, in order.

        Args:
            count: int in [0, len(units) - 1], the number of dense layers to
                include, each with its batch normalization and activation.
        """
        return self.stack[: count * (3 if self.hidden_normalization else 2)]

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Maps features of shape `(N, C)` to `(N, units[-1])`."""
        x = inputs
        for layer in self.stack:
            if isinstance(layer, keras.layers.BatchNormalization):
                x = layer(x, training=training)
            else:
                x = layer(x)
        return x

    def compute_output_shape(self, input_shape: Sequence[int]) -> tuple:
        """Returns `(N, units[-1])`."""
        return (*input_shape[:-1], self.units[-1])

    def get_config(self) -> dict:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "units": list(self.units),
            "hidden_normalization": self.hidden_normalization,
            "hidden_bias": self.hidden_bias,
            "output_bias": self.output_bias,
            "output_normalization": self.output_normalization,
            "hidden_activation": self.hidden_activation,
            "initial_std": self.initial_std,
        }
