"""Layers that approaches share: projection and prediction heads."""

from kerassl.layers.mlp_head import MLPHead

__all__ = ["MLPHead"]
