"""Regularization methods: keep the outputs spread by a rule of their own."""

from kerassl.methods.regularization.barlow_twins import BarlowTwins
from kerassl.methods.regularization.swav import SwAV
from kerassl.methods.regularization.vicreg import VICReg

__all__ = ["BarlowTwins", "SwAV", "VICReg"]
