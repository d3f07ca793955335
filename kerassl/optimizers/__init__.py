"""Optimizers and schedules that Keras doesn't have."""

from kerassl.optimizers.adamw import AdamW
from kerassl.optimizers.lars import LARS
from kerassl.optimizers.rates import with_learning_rates
from kerassl.optimizers.schedules import Delayed, Ramp, warmup_cosine

__all__ = [
    "LARS",
    "AdamW",
    "Delayed",
    "Ramp",
    "warmup_cosine",
    "with_learning_rates",
]
