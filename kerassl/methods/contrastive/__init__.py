"""Contrastive approaches: tell the views of one image from all others."""

from kerassl.methods.contrastive.simclr import SimCLR

__all__ = ["SimCLR"]
