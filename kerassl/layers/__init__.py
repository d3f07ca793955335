"""Layers that methods share: heads, prototypes, momentum networks, queues."""

from kerassl.layers.channelwise_dense import ChannelwiseDense
from kerassl.layers.dino_head import DINOHead, WeightNormDense
from kerassl.layers.feature_queue import FeatureQueue
from kerassl.layers.mlp_head import MLPHead
from kerassl.layers.momentum_network import (
    CosineMomentum,
    MomentumNetwork,
    update_together,
)
from kerassl.layers.positions import (
    MaskedTokens,
    TokensAtSize,
    bicubic_matrix,
)
from kerassl.layers.prototypes import Prototypes

__all__ = [
    "ChannelwiseDense",
    "CosineMomentum",
    "DINOHead",
    "FeatureQueue",
    "MLPHead",
    "MaskedTokens",
    "MomentumNetwork",
    "Prototypes",
    "TokensAtSize",
    "WeightNormDense",
    "bicubic_matrix",
    "update_together",
]
