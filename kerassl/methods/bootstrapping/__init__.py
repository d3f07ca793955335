"""Bootstrapping methods: predict the other view, with no negatives."""

from kerassl.methods.bootstrapping.byol import BYOL
from kerassl.methods.bootstrapping.simsiam import SimSiam

__all__ = ["BYOL", "SimSiam"]
