"""Methods: one file each, in the folder of its family.

This is the only list of classes. `kerassl/recipes/NAME.toml` declares the rest
of a method, and `kerassl.registry` reads it.
"""

from kerassl.methods.base import SelfSupervisedModel
from kerassl.methods.bootstrapping.byol import BYOL
from kerassl.methods.bootstrapping.simsiam import SimSiam
from kerassl.methods.contrastive.moco import MoCo
from kerassl.methods.contrastive.moco_v3 import MoCoV3
from kerassl.methods.contrastive.nnclr import NNCLR
from kerassl.methods.contrastive.simclr import SimCLR
from kerassl.methods.distillation.distillation import Distillation
from kerassl.methods.masked.context_encoder import ContextEncoder
from kerassl.methods.masked.ijepa import IJEPA
from kerassl.methods.masked.mae import MAE
from kerassl.methods.masked.simmim import SimMIM
from kerassl.methods.predictive.context_prediction import ContextPrediction
from kerassl.methods.predictive.jigsaw import Jigsaw
from kerassl.methods.predictive.rotation import Rotation
from kerassl.methods.regularization.barlow_twins import BarlowTwins
from kerassl.methods.regularization.emp_ssl import EMPSSL
from kerassl.methods.regularization.lejepa import LeJEPA
from kerassl.methods.regularization.swav import SwAV
from kerassl.methods.regularization.vicreg import VICReg
from kerassl.methods.regularization.visreg import VISReg
from kerassl.methods.self_distillation.dino import DINO
from kerassl.methods.self_distillation.dinov2 import DINOv2
from kerassl.methods.self_distillation.ibot import IBOT

__all__ = [
    "BYOL",
    "DINO",
    "EMPSSL",
    "IBOT",
    "IJEPA",
    "MAE",
    "NNCLR",
    "BarlowTwins",
    "ContextEncoder",
    "ContextPrediction",
    "DINOv2",
    "Distillation",
    "Jigsaw",
    "LeJEPA",
    "MoCo",
    "MoCoV3",
    "Rotation",
    "SelfSupervisedModel",
    "SimCLR",
    "SimMIM",
    "SimSiam",
    "SwAV",
    "VICReg",
    "VISReg",
]
