"""Self-supervised learning for Keras 3.

Train an encoder with `fit` on images that nobody labeled, and see what it
learned. Heavy libraries (KerasHub, TensorFlow Datasets, matplotlib) load on
use.
"""

import os
import sys

# The command line answers `--help` and mistakes before it loads Keras, which
# takes seconds, and then loads what it needs. Everybody else gets all of it
# here, so that Keras finds the classes that a file names.
if os.path.splitext(os.path.basename(sys.argv[0]))[0] != "kerassl" and not (
    sys.argv[0] == "-m" and "kerassl" in sys.orig_argv
):
    from kerassl import (
        augmentation,
        callbacks,
        data,
        distributed,
        encoders,
        evaluation,
        layers,
        losses,
        methods,
        optimizers,
        presets,
        recipes,
        report,
        runs,
        training,
        visualization,
    )
    from kerassl.methods import (
        BYOL,
        MAE,
        BarlowTwins,
        ContextEncoder,
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
    from kerassl.presets import (
        list_presets,
        load_encoder,
        save_preset,
        upload_preset,
        verify_preset,
    )

__version__ = "0.1.0"

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
    "augmentation",
    "callbacks",
    "data",
    "distributed",
    "encoders",
    "evaluation",
    "layers",
    "list_presets",
    "load_encoder",
    "losses",
    "methods",
    "optimizers",
    "presets",
    "recipes",
    "report",
    "runs",
    "save_preset",
    "training",
    "upload_preset",
    "verify_preset",
    "visualization",
]
