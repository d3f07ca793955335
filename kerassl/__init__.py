"""Self-supervised learning for Keras 3.

Train an encoder with `fit` on images that nobody labelled, and see what it
learned. Heavy libraries (KerasHub, TensorFlow Datasets, matplotlib) load on
use.
"""

from kerassl import (
    augmentation,
    callbacks,
    data,
    encoders,
    evaluation,
    layers,
    losses,
    methods,
    optimizers,
    recipes,
    runs,
    training,
)
from kerassl.methods import (
    BYOL,
    BarlowTwins,
    ContextPrediction,
    Jigsaw,
    MoCo,
    MoCoV3,
    Rotation,
    SelfSupervisedModel,
    SimCLR,
    SimSiam,
    SwAV,
    VICReg,
)

__version__ = "0.1.0"

__all__ = [
    "BYOL",
    "BarlowTwins",
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
    "augmentation",
    "callbacks",
    "data",
    "encoders",
    "evaluation",
    "layers",
    "losses",
    "methods",
    "optimizers",
    "recipes",
    "runs",
    "training",
]
