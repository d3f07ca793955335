"""SwAV's prototypes: unit vectors to compare features with."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="kerassl")
class Prototypes(keras.layers.Layer):
    """Cosine similarities of normalized features with unit vectors.

    The optimizer moves the vectors off the unit sphere, so `normalize` has to
    be called after each step.

    Args:
        count: int > 0. The number of prototypes.
        **kwargs: the arguments of `keras.layers.Layer`.

    Input shape: `(N, D)`, rows of norm 1. Output shape: `(N, count)`.

    Raises:
        ValueError: if `count` is not positive.

    Example:
    ```python
    prototypes = kerassl.layers.Prototypes(3000)
    scores = prototypes(ops.normalize(projections))      # (N, 3000)
    ```

    Reference:
        - [Caron et al., 2020, SwAV](https://arxiv.org/abs/2006.09882)
    """

    def __init__(self, count: int, **kwargs: Any):
        super().__init__(**kwargs)
        if count < 1:
            raise ValueError(f"`count` must be positive. Received: {count}")
        self.count = count

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Creates random unit vectors, the columns of `(D, count)`."""

        def unit_vectors(shape: tuple, dtype: Any = None) -> Any:
            draw = keras.initializers.RandomNormal(stddev=1.0)
            return ops.normalize(draw(shape, dtype=dtype), axis=0)

        self.vectors = self.add_weight(
            name="vectors",
            shape=(input_shape[-1], self.count),
            initializer=unit_vectors,
            # `call` casts it: it may be called where others are cast.
            autocast=False,
        )

    def call(self, inputs: Any, frozen: Any = None) -> Any:
        """Maps `(N, D)` to `(N, count)`.

        Args:
            inputs: tensor.
            frozen: scalar bool tensor. `True` stops the gradient to the
                vectors.
        """
        vectors = ops.cast(self.vectors, self.compute_dtype)
        if frozen is not None:
            vectors = ops.where(frozen, ops.stop_gradient(vectors), vectors)
        return ops.matmul(inputs, vectors)

    def normalize(self) -> None:
        """Scales the vectors back to norm 1."""
        vectors = ops.stop_gradient(ops.convert_to_tensor(self.vectors))
        norms = ops.sqrt(ops.sum(ops.square(vectors), axis=0, keepdims=True))
        self.vectors.assign(vectors / (norms + 1e-12))

    def compute_output_shape(self, input_shape: Sequence[int]) -> tuple:
        """Returns `(N, count)`."""
        return (*input_shape[:-1], self.count)

    def get_config(self) -> dict:
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "count": self.count}
