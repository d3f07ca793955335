"""Contrastive methods: tell the views of one image from all others."""

from kerassl.methods.contrastive.moco import MoCo, MoCoV3
from kerassl.methods.contrastive.simclr import SimCLR

__all__ = ["MoCo", "MoCoV3", "SimCLR"]
