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

_OWN = contextvars.ContextVar("local_statistics", default=False)


class GlobalBatchNormalization(keras.layers.BatchNormalization):
    """Keras's batch normalization with the statistics of all devices.

    Keras's own `synchronized=True` exists on TensorFlow alone. No model is made
    of this layer: `global_statistics` lends its `call`.
    """

    def call(
        self, inputs: Any, training: bool | None = None, mask: Any = None
    ) -> Any:
        """Normalizes with the moments of the global batch in training."""
        is_plain = _OWN.get() or not (training and self.trainable)
        if is_plain or mask is not None:
            return super().call(inputs, training=training, mask=mask)
        dtype = keras.backend.result_type(inputs.dtype, "float32")
        x = ops.cast(inputs, dtype)
        axes = [i for i in range(x.ndim) if i != self.axis % x.ndim]
        own = ops.stack([ops.mean(x, axes), ops.mean(ops.square(x), axes)])
        mean, square = ops.unstack(mean_over_devices(own), 2)
        # Rounding may leave it below 0, of a channel that hardly varies.
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
    """Batch normalization in it keeps to the statistics of its own device."""
    token = _OWN.set(True)
    try:
        yield
    finally:
        _OWN.reset(token)


@contextlib.contextmanager
def global_statistics(model: keras.layers.Layer) -> Iterator[None]:
    """Batch normalization in it takes the statistics of the global batch.

    Of all layers of the model, KerasHub's too. They are what they were
    afterwards, so that files hold Keras's own layer. On one device, and on JAX,
    where a batch is global already, it does nothing.

    Args:
        model: layer or model.
    """
    lent = []
    if replicas() > 1:
        kind = keras.layers.BatchNormalization
        lent = [layer for layer in all_layers(model) if type(layer) is kind]
    for layer in lent:
        object.__setattr__(layer, "__class__", GlobalBatchNormalization)
    try:
        yield
    finally:
        for layer in lent:
            layer_class = keras.layers.BatchNormalization
            object.__setattr__(layer, "__class__", layer_class)
