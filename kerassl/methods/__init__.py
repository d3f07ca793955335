"""Methods: one file each, in the family that it belongs to."""

from kerassl.methods.base import SelfSupervisedModel
from kerassl.methods.bootstrapping import BYOL, SimSiam
from kerassl.methods.contrastive import MoCo, MoCoV3, SimCLR
from kerassl.methods.generative import MAE, ContextEncoder
from kerassl.methods.predictive import ContextPrediction, Jigsaw, Rotation
from kerassl.methods.regularization import BarlowTwins, SwAV, VICReg

__all__ = [
    "BYOL",
    "MAE",
    "BarlowTwins",
    "ContextEncoder",
    "ContextPrediction",
    "Jigsaw",
    "MoCo",
    "MoCoV3",
    "Rotation",
    "SelfSupervisedModel",
    "SimCLR",
    "SimSiam",
    "SwAV",
    "VICReg",
]
