"""Approaches: one file each, in the family that it belongs to."""

from kerassl.methods.base import SelfSupervisedModel
from kerassl.methods.contrastive.simclr import SimCLR

__all__ = ["SelfSupervisedModel", "SimCLR"]
