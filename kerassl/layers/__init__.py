"""Layers that approaches share: projectors, predictors and prototypes."""

from kerassl.layers.channelwise_dense import ChannelwiseDense
from kerassl.layers.mlp_head import MLPHead
from kerassl.layers.prototypes import Prototypes

__all__ = ["ChannelwiseDense", "MLPHead", "Prototypes"]
