"""A first-in, first-out memory of features, as weights of the model."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="kerassl")
class FeatureQueue(keras.layers.Layer):
    """Holds the last `size` features, newest first.

    They are its only weight, `features`, of shape `(size, dim)`, float32 in
    every dtype policy. The queue starts with random unit vectors, like MoCo's,
    or with zeros, like SwAV's, which shows when it is full. New features enter
    at the front and push the oldest out at the back. Without a pointer, shapes
    stay static on every backend, and any batch up to `size` fits.

    Args:
        size: int > 0. The number of features to hold.
        dim: int > 0. The width of a feature.
        start: `"random"` or `"zeros"`.
        seed: int or `None`, for the random start.
        **kwargs: the arguments of `keras.layers.Layer`.

    Raises:
        ValueError: if `size` or `dim` is not positive, or `start` is neither.

    Example:
    ```python
    queue = kerassl.layers.FeatureQueue(size=4096, dim=128)
    negatives = queue.snapshot()              # (4096, 128), float32
    queue.enqueue(ops.normalize(keys))
    ```

    Reference:
        - [He et al., 2020, MoCo](https://arxiv.org/abs/1911.05722)
    """

    def __init__(
        self,
        size: int,
        dim: int,
        start: str = "random",
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if size < 1 or dim < 1:
            raise ValueError(
                "`size` and `dim` must be positive. "
                f"Received: size={size}, dim={dim}"
            )
        if start not in ("random", "zeros"):
            raise ValueError(
                f"`start` must be 'random' or 'zeros'. Received: {start!r}"
            )
        self.size = size
        self.dim = dim
        self.start = start
        self.seed = seed
        # float32 in every dtype policy, since keys stay in it for many steps.
        self.features = self.add_weight(
            name="features",
            shape=(size, dim),
            dtype="float32",
            initializer=self._random_unit_vectors
            if start == "random"
            else "zeros",
            trainable=False,
            autocast=False,
        )
        self.built = True

    def _random_unit_vectors(self, shape: tuple, dtype: Any = None) -> Any:
        draw = keras.initializers.RandomNormal(stddev=1.0, seed=self.seed)
        return ops.normalize(draw(shape, dtype="float32"), axis=-1)

    def snapshot(self) -> Any:
        """Returns a copy of the features, `(size, dim)`, without gradient.

        Losses need a copy: on PyTorch, `enqueue` writes into `features` in
        place, before the backward pass.
        """
        return ops.stop_gradient(ops.copy(ops.convert_to_tensor(self.features)))

    def check_batch(self, size: int) -> None:
        """Refuses a batch larger than the queue.

        Args:
            size: int, the number of features, of all processes.

        Raises:
            ValueError: with advice.
        """
        if size > self.size:
            raise ValueError(
                f"The queue holds {self.size} features, and can't take a batch "
                f"of {size}. Choose a larger `queue_size` or a smaller "
                "`batch_size`."
            )

    def enqueue(self, features: Any) -> None:
        """Adds a batch, and drops as many of the oldest features.

        Args:
            features: tensor of shape `(N, dim)` with N <= size. Gradients
                don't flow into the queue.

        Raises:
            ValueError: if the features have another width, or are too many.
        """
        count, dim = features.shape
        if dim != self.dim:
            raise ValueError(
                f"The queue holds features of width {self.dim}. Received: "
                f"width {dim}"
            )
        if count is not None:
            self.check_batch(count)
        features = ops.cast(ops.stop_gradient(features), "float32")
        kept = ops.concatenate([features, self.features])[: self.size]
        self.features.assign(kept)

    def get_config(self) -> dict:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "size": self.size,
            "dim": self.dim,
            "start": self.start,
            "seed": self.seed,
        }
