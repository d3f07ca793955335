"""Batch normalization over the global batch."""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import keras
from keras import ops

from kerassl.distributed.collectives import mean_over_devices
from kerassl.distributed.topology import replicas
from kerassl.networks import all_layers

_IS_LOCAL = contextvars.ContextVar("local_statistics", default=False)


class GlobalBatchNormalization(keras.layers.BatchNormalization):
    """Keras's batch normalization with the statistics of all devices.

    Keras's own `synchronized=True` works on TensorFlow only. No model contains
    this layer: `global_statistics` swaps it in for the duration of a step.
    """

    def call(
        self, inputs: Any, training: bool | None = None, mask: Any = None
    ) -> Any:
        """Normalizes with the moments of the global batch in training."""
        is_plain = _IS_LOCAL.get() or not (training and self.trainable)
        if is_plain or mask is not None:
            return super().call(inputs, training=training, mask=mask)
        dtype = keras.backend.result_type(inputs.dtype, "float32")
        x = ops.cast(inputs, dtype)
        axes = [i for i in range(x.ndim) if i != self.axis % x.ndim]
        own = ops.stack([ops.mean(x, axes), ops.mean(ops.square(x), axes)])
        mean, square = ops.unstack(mean_over_devices(own), 2)
        # Rounding may make it negative if a channel hardly varies.
        variance = ops.maximum(square - ops.square(mean), 0.0)
        for moving, new in (
            (self.moving_mean, mean),
            (self.moving_variance, variance),
        ):
            kept = ops.cast(moving, dtype) * self.momentum
            new = ops.stop_gradient(new) * (1.0 - self.momentum)
            moving.assign(ops.cast(kept + new, moving.dtype))
        outputs = ops.batch_normalization(
            x,
            mean,
            variance,
            axis=self.axis,
            offset=None if self.beta is None else ops.cast(self.beta, dtype),
            scale=None if self.gamma is None else ops.cast(self.gamma, dtype),
            epsilon=self.epsilon,
        )
        return ops.cast(outputs, self.compute_dtype)


@contextlib.contextmanager
def local_statistics() -> Iterator[None]:
    """Makes batch normalization use each device's own statistics."""
    token = _IS_LOCAL.set(True)
    try:
        yield
    finally:
        _IS_LOCAL.reset(token)


@contextlib.contextmanager
def global_statistics(model: keras.layers.Layer) -> Iterator[None]:
    """Makes a model's batch normalization use the global batch's statistics.

    It changes the class of all `BatchNormalization` layers, including
    KerasHub's. The class is restored on exit, so files contain plain Keras
    layers. It does nothing on one device, and on JAX, where the step sees the
    global batch anyway.

    Args:
        model: layer or model.
    """
    changed = []
    if replicas() > 1:
        kind = keras.layers.BatchNormalization
        changed = [layer for layer in all_layers(model) if type(layer) is kind]
    for layer in changed:
        object.__setattr__(layer, "__class__", GlobalBatchNormalization)
    try:
        yield
    finally:
        for layer in changed:
            layer_class = keras.layers.BatchNormalization
            object.__setattr__(layer, "__class__", layer_class)
