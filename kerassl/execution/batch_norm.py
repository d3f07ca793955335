"""Batch normalization as it runs during a step."""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import keras
from keras import ops

from kerassl.distributed import mean_over_devices, replicas

_IS_LOCAL = contextvars.ContextVar("local_statistics", default=False)


class BatchNormalization(keras.layers.BatchNormalization):
    """Keras's batch normalization, computed by PyTorch's own on PyTorch.

    Keras composes it of operations on each element, and its variance, a
    difference, may be negative. No model contains this layer: `lent` swaps it
    in for the duration of a step.
    """

    over_devices = False

    def call(
        self, inputs: Any, training: bool | None = None, mask: Any = None
    ) -> Any:
        """Normalizes with the moments of the batch in training."""
        in_training = bool(training and self.trainable)
        if mask is None and not self.renorm:
            if in_training and self.is_global():
                return self._globally(inputs)
            # PyTorch refuses a batch of one, which has no variance.
            if keras.backend.backend() == "torch" and not (
                in_training and inputs.numel() <= inputs.shape[self.axis]
            ):
                return self._by_pytorch(inputs, in_training)
        return super().call(inputs, training=training, mask=mask)

    def is_global(self) -> bool:
        """Returns whether several devices share their statistics now."""
        return self.over_devices and shares_statistics()

    def keep(self, mean: Any, variance: Any) -> None:
        """Moves the moving statistics towards those of a batch."""
        for moving, new in (
            (self.moving_mean, mean),
            (self.moving_variance, variance),
        ):
            kept = ops.cast(moving, new.dtype) * self.momentum
            new = ops.stop_gradient(new) * (1.0 - self.momentum)
            moving.assign(ops.cast(kept + new, moving.dtype))

    def _globally(self, inputs: Any) -> Any:
        dtype = keras.backend.result_type(inputs.dtype, "float32")
        x = ops.cast(inputs, dtype)
        axes = [i for i in range(x.ndim) if i != self.axis % x.ndim]
        own = ops.stack([ops.mean(x, axes), ops.mean(ops.square(x), axes)])
        mean, square = ops.unstack(mean_over_devices(own), 2)
        # Rounding may make it negative if a channel hardly varies.
        variance = ops.maximum(square - ops.square(mean), 0.0)
        self.keep(mean, variance)
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

    def _by_pytorch(self, inputs: Any, in_training: bool) -> Any:
        from kerassl.execution import pytorch

        x = inputs.movedim(self.axis, 1)
        scale, offset = (
            None if weight is None else ops.convert_to_tensor(weight)
            for weight in (self.gamma, self.beta)
        )
        if in_training:
            mean, variance = ops.unstack(
                ops.zeros((2, x.shape[1]), pytorch.wide_dtype(x)), 2
            )
            y = pytorch.normalize(
                x, mean, variance, scale, offset, self.epsilon
            )
            # PyTorch gives the unbiased variance, Keras keeps the biased one.
            count = x.numel() // x.shape[1]
            self.keep(mean, variance * ((count - 1) / count))
        else:
            y = pytorch.normalize_by(
                x,
                ops.convert_to_tensor(self.moving_mean),
                ops.convert_to_tensor(self.moving_variance),
                scale,
                offset,
                self.epsilon,
                will_move=self.trainable,
            )
        return ops.cast(y.movedim(1, self.axis), self.compute_dtype)


class GlobalBatchNormalization(BatchNormalization):
    """Batch normalization with the statistics of all devices.

    Keras's own `synchronized=True` works on TensorFlow only.
    """

    over_devices = True


def shares_statistics() -> bool:
    """Returns whether devices share the statistics of a batch now."""
    return replicas() > 1 and not _IS_LOCAL.get()


@contextlib.contextmanager
def local_statistics() -> Iterator[None]:
    """Makes batch normalization use each device's own statistics."""
    token = _IS_LOCAL.set(True)
    try:
        yield
    finally:
        _IS_LOCAL.reset(token)
