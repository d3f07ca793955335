"""DINO's head: an MLP, unit vectors, and a weight-normalized last layer."""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kerassl.layers.mlp_head import MLPHead
from kerassl.losses import unit_vectors


@keras.saving.register_keras_serializable(package="kerassl")
class WeightNormDense(keras.layers.Layer):
    """A dense layer without bias that learns direction and scale apart.

    Column k of its matrix is `scale[k] * kernel[:, k] / |kernel[:, k]|`. It
    computes in float32, or in the precision of its weights.

    Args:
        units: int > 0, the width of the output.
        train_scale: bool. With `False` the scales stay 1 and aren't weights.
        **kwargs: the arguments of `keras.layers.Layer`.

    Input shape: `(..., D)`. Output shape: `(..., units)`.

    Raises:
        ValueError: if `units` is not positive.

    Example:
    ```python
    logits = kerassl.layers.WeightNormDense(4096)(vectors)      # (N, 4096)
    ```

    Reference:
        - [Salimans and Kingma, 2016](https://arxiv.org/abs/1602.07868)
    """

    def __init__(self, units: int, train_scale: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        if units < 1:
            raise ValueError(f"`units` must be positive. Received: {units}")
        self.units = units
        self.train_scale = train_scale

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Creates the kernel `(D, units)`, and the scales `(units,)`."""
        width = input_shape[-1]
        # The gradient of a direction shrinks with the length of its column,
        # so PyTorch's bound belongs to the authors' learning rates.
        bound = 1.0 / math.sqrt(width or 1)
        self.kernel = self.add_weight(
            name="kernel",
            shape=(width, self.units),
            initializer=keras.initializers.RandomUniform(-bound, bound),
            # `call` casts it: it may be called where others are cast.
            autocast=False,
        )
        if self.train_scale:
            self.scale = self.add_weight(
                name="scale",
                shape=(self.units,),
                initializer="ones",
                autocast=False,
            )

    def call(self, inputs: Any) -> Any:
        """Maps `(..., D)` to `(..., units)`."""
        kernel, *scale = (
            ops.cast(weight, self.compute_dtype) for weight in self.weights
        )
        squares = ops.sum(ops.square(kernel), axis=0)
        matrix = kernel * ops.rsqrt(squares + 1e-24)
        if scale:
            matrix = scale[0] * matrix
        return ops.matmul(ops.cast(inputs, matrix.dtype), matrix)

    def compute_output_shape(self, input_shape: Sequence[int]) -> tuple:
        """Returns `(..., units)`."""
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "units": self.units,
            "train_scale": self.train_scale,
        }


@keras.saving.register_keras_serializable(package="kerassl")
class DINOHead(keras.layers.Layer):
    """Compares features with K prototypes, as DINO, iBOT and DINOv2 do.

    An `MLPHead` with GELU, whose output is scaled to norm 1, and a
    `WeightNormDense` to K logits: cosines, unless the scales are trained, as
    DINOv2's code always does.

    Args:
        num_prototypes: int > 0, K.
        hidden_dim: int > 0. The width of the hidden layers.
        projection_dim: int > 0. The width of the vectors that are compared with
            the prototypes.
        depth: int > 0. The number of dense layers before these vectors.
        batch_normalization: bool. Whether the hidden layers have batch
            normalization.
        train_scale: bool. Whether the scales of the last layer are trained.
        **kwargs: the arguments of `keras.layers.Layer`.

    Input shape: `(..., D)`. Output shape: `(..., K)`, float32 (float64 if the
    weights are).

    Raises:
        ValueError: if a number is not positive.

    Example:
    ```python
    head = kerassl.layers.DINOHead(4096)
    logits = head(features, training=True)       # (N, 4096)
    ```

    Reference:
        - [Caron et al., 2021](https://arxiv.org/abs/2104.14294)
        - facebookresearch/dino, `vision_transformer.py`
    """

    def __init__(
        self,
        num_prototypes: int,
        hidden_dim: int = 2048,
        projection_dim: int = 256,
        depth: int = 3,
        batch_normalization: bool = False,
        train_scale: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if depth < 1:
            raise ValueError(f"`depth` must be positive. Received: {depth}")
        self.num_prototypes = num_prototypes
        self.hidden_dim = hidden_dim
        self.projection_dim = projection_dim
        self.depth = depth
        self.batch_normalization = batch_normalization
        self.train_scale = train_scale
        self.mlp = MLPHead(
            (hidden_dim,) * (depth - 1) + (projection_dim,),
            hidden_normalization=batch_normalization,
            hidden_bias=True,
            output_bias=True,
            hidden_activation="gelu",
            initial_std=0.02,
            dtype=self.dtype_policy,
            name="mlp",
        )
        # A softmax over thousands of prototypes needs float32.
        dtype = keras.backend.result_type(self.variable_dtype, "float32")
        self.last = WeightNormDense(
            num_prototypes, train_scale, dtype=dtype, name="last"
        )

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Creates the weights for inputs of shape `(..., D)`."""
        self.mlp.build((None, input_shape[-1]))
        self.last.build((None, self.projection_dim))

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Maps features `(..., D)` to logits `(..., K)`."""
        return self.last(self.vectors(inputs, training))

    def vectors(self, inputs: Any, training: bool = False) -> Any:
        """Maps features `(..., D)` to unit vectors `(..., projection_dim)`.

        Batch normalization takes tokens as it takes images.
        """
        if len(inputs.shape) == 2:
            return unit_vectors(self.mlp(inputs, training=training))
        rows = ops.reshape(inputs, (-1, inputs.shape[-1]))
        found = unit_vectors(self.mlp(rows, training=training))
        shape = (-1, *inputs.shape[1:-1], self.projection_dim)
        return ops.reshape(found, shape)

    def compute_output_shape(self, input_shape: Sequence[int]) -> tuple:
        """Returns `(..., K)`."""
        return (*input_shape[:-1], self.num_prototypes)

    def get_config(self) -> dict:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "num_prototypes": self.num_prototypes,
            "hidden_dim": self.hidden_dim,
            "projection_dim": self.projection_dim,
            "depth": self.depth,
            "batch_normalization": self.batch_normalization,
            "train_scale": self.train_scale,
        }
