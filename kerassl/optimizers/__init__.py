"""Optimizers and learning-rate schedules that Keras lacks."""

from kerassl.optimizers.lars import LARS
from kerassl.optimizers.rates import with_rates
from kerassl.optimizers.schedules import warmup_cosine

__all__ = ["LARS", "warmup_cosine", "with_rates"]
