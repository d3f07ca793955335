"""Self-supervised learning for Keras 3.

Train an encoder with `fit` on images without labels, and measure what it
learned. Heavy libraries (KerasHub, TensorFlow Datasets, matplotlib) are
imported when they are needed.
"""

import os
import sys

__version__ = "0.1.0"

__all__ = [
    "augmentation",
    "callbacks",
    "convert_checkpoint",
    "data",
    "distributed",
    "download_preset",
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

# The command line answers `--help` and mistakes before it loads Keras, which
# takes seconds, and then imports what it needs. All others import everything
# here, so that Keras finds the classes that saved files name.
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
    from kerassl.methods import *  # noqa: F403
    from kerassl.presets import (
        convert_checkpoint,
        download_preset,
        list_presets,
        load_encoder,
        save_preset,
        upload_preset,
        verify_preset,
    )

    __all__ += methods.__all__
