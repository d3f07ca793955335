"""Schedules: warmup and cosine decay, and ramps of other numbers."""

import math
from typing import Any

import keras
from keras import ops

CURVES = ("linear", "cosine")


@keras.saving.register_keras_serializable(package="kerassl")
class Ramp(keras.optimizers.schedules.LearningRateSchedule):
    """A number that moves from one value to another, and stays there.

    For what changes during training besides the learning rate: a weight decay
    (`kerassl.optimizers.AdamW`), the momentum of a teacher, its temperature.

    Args:
        start: float, the value at step 0.
        end: float, the value from step `steps` on.
        steps: int > 0, the optimizer steps that it takes. With
            `gradient_accumulation_steps=k` these are a k-th of the batches.
        curve: `"linear"`, or `"cosine"` for half a cosine.

    Raises:
        ValueError: if `steps` is not positive or `curve` is unknown.

    Example:
    ```python
    decay = kerassl.optimizers.Ramp(0.04, 0.4, total_steps)
    optimizer = kerassl.optimizers.AdamW(5e-4, weight_decay=decay)
    ```
    """

    def __init__(
        self, start: float, end: float, steps: int, curve: str = "cosine"
    ):
        if steps < 1 or curve not in CURVES:
            raise ValueError(
                f"`steps` must be positive and `curve` one of {CURVES}. "
                f"Received: steps={steps}, curve={curve!r}"
            )
        self.start = start
        self.end = end
        self.steps = steps
        self.curve = curve

    def __call__(self, step: Any) -> Any:
        """Returns the float32 value at a (scalar, maybe traced) step."""
        step = ops.cast(step, "float32")
        if self.curve == "linear":
            left = ops.relu(1.0 - step / self.steps)
            return self.end - (self.end - self.start) * left
        turn = math.pi / self.steps
        left = ops.relu(math.pi - turn * step)
        half = (self.end - self.start) / 2
        return half * ops.cos(left) + (self.end - half)

    def get_config(self) -> dict:
        """Returns the arguments of the constructor."""
        return {
            "start": self.start,
            "end": self.end,
            "steps": self.steps,
            "curve": self.curve,
        }


@keras.saving.register_keras_serializable(package="kerassl")
class WarmupCosine(keras.optimizers.schedules.CosineDecay):
    """Keras's `CosineDecay`, for which the host doesn't wait on PyTorch.

    Keras sends each of its numbers to the device, in each step, and reads there
    whether the warmup is over.
    """

    def __call__(self, step: Any) -> Any:
        """Returns the learning rate at a (scalar, maybe traced) step."""
        step = ops.cast(step, keras.config.floatx())
        peak = self.warmup_target
        if peak is None:
            peak = self.initial_learning_rate
        turn = math.pi / self.decay_steps
        left = ops.relu(math.pi + turn * self.warmup_steps - turn * step)
        half = peak * (1 - self.alpha) / 2
        rate = half + peak * self.alpha - half * ops.cos(left)
        if not self.warmup_steps:
            return rate
        start = self.initial_learning_rate
        rising = (peak - start) / self.warmup_steps * step + start
        return ops.where(step < self.warmup_steps, rising, rate)


@keras.saving.register_keras_serializable(package="kerassl")
class Delayed(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate of 0 for a while, and then another one from its start.

    What has a rate of 0 is frozen, but for the statistics of batch
    normalization: gradients and weight decay are multiplied by it.

    Args:
        rate: float or a schedule, which begins after the delay.
        steps: int >= 0, the number of steps at a rate of 0.

    Raises:
        ValueError: if `steps` is negative.

    Example:
    ```python
    rate = kerassl.optimizers.warmup_cosine(0.03, total_steps=900)
    rate = kerassl.optimizers.Delayed(rate, 100)  # of 1,000 steps
    ```
    """

    def __init__(self, rate: Any, steps: int):
        if steps < 0:
            raise ValueError(f"`steps` must be at least 0. Received: {steps}")
        self.rate = rate
        self.steps = steps

    def __call__(self, step: Any) -> Any:
        """Returns the learning rate at a (scalar, maybe traced) step."""
        step = ops.cast(step, keras.config.floatx())
        rate = self.rate
        if callable(rate):
            rate = rate(ops.relu(step - self.steps))
        return rate * ops.cast(step >= self.steps, keras.config.floatx())

    def get_config(self) -> dict:
        """Returns the arguments of the constructor."""
        serialize = keras.saving.serialize_keras_object
        rate = serialize(self.rate) if callable(self.rate) else self.rate
        return {"rate": rate, "steps": self.steps}

    @classmethod
    def from_config(cls, config: dict) -> "Delayed":
        """Makes the schedule from the result of `get_config`."""
        rate = config["rate"]
        if isinstance(rate, dict):
            rate = keras.saving.deserialize_keras_object(rate)
        return cls(rate, config["steps"])


def warmup_cosine(
    peak: float, total_steps: int, warmup_steps: int = 0, final: float = 0.0
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Returns a linear warmup from 0 to `peak`, then a cosine decay to `final`.

    The cosine runs over `total_steps - warmup_steps`, as in the code of
    SimCLR, BYOL and Barlow Twins.

    Args:
        peak: float > 0. The learning rate at the end of the warmup.
        total_steps: int. The number of batches of the whole run. Keras counts
            each batch, even with `gradient_accumulation_steps`.
        warmup_steps: int in [0, total_steps).
        final: float in [0, peak]. The learning rate at the end.

    Returns:
        A schedule, a `keras.optimizers.schedules.CosineDecay`.

    Raises:
        ValueError: if the steps or the rates are out of range.

    Example:
    ```python
    rate = kerassl.optimizers.warmup_cosine(
        0.3, total_steps=1000, warmup_steps=100
    )
    optimizer = keras.optimizers.SGD(rate, momentum=0.9)
    ```
    """
    if not 0 <= warmup_steps < total_steps:
        raise ValueError(
            "`warmup_steps` must be at least 0 and below `total_steps`. "
            f"Received: warmup_steps={warmup_steps}, total_steps={total_steps}"
        )
    if not 0 <= final <= peak or peak <= 0:
        raise ValueError(
            "The rates must satisfy 0 <= final <= peak and peak > 0. "
            f"Received: final={final}, peak={peak}"
        )
    return WarmupCosine(
        initial_learning_rate=0.0 if warmup_steps else peak,
        decay_steps=total_steps - warmup_steps,
        alpha=final / peak,
        warmup_target=peak if warmup_steps else None,
        warmup_steps=warmup_steps,
    )
