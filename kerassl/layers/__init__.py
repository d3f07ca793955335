"""Layers that approaches share: projectors, predictors and prototypes."""

from kerassl.layers.mlp_head import MLPHead
from kerassl.layers.prototypes import Prototypes

__all__ = ["MLPHead", "Prototypes"]
