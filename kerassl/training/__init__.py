"""What every approach shares: steps, momentum networks, queues, devices."""

from kerassl.training.distribution import (
    DeviceSeedGenerator,
    device_count,
    devices,
    lacks_processes,
    process,
    replicas,
    started_devices,
)
from kerassl.training.gather import (
    as_keras_sums,
    gather,
    mean_over_devices,
    own_places,
    own_rows,
)
from kerassl.training.image_model import ImageModel, bound
from kerassl.training.in_memory import read_images, read_labelled
from kerassl.training.inputs import Inputs, batch_sizes, select
from kerassl.training.momentum import (
    CosineMomentum,
    MomentumNetwork,
    follow_frozen,
)
from kerassl.training.monitors import Monitor, with_monitors
from kerassl.training.normalization import global_statistics, own_statistics
from kerassl.training.parts import (
    copy_normalization,
    freeze_parts,
    frozen_parts,
    set_trainable,
    set_weights,
)
from kerassl.training.pixels import PixelWatch
from kerassl.training.processes import (
    agree,
    alone,
    failures,
    own_copy,
    own_part,
    predict_alone,
    share_weights,
)
from kerassl.training.queue import FeatureQueue
from kerassl.training.step import build_optimizer, train_step

__all__ = [
    "CosineMomentum",
    "DeviceSeedGenerator",
    "FeatureQueue",
    "ImageModel",
    "Inputs",
    "MomentumNetwork",
    "Monitor",
    "PixelWatch",
    "agree",
    "alone",
    "as_keras_sums",
    "batch_sizes",
    "bound",
    "build_optimizer",
    "copy_normalization",
    "device_count",
    "devices",
    "failures",
    "follow_frozen",
    "freeze_parts",
    "frozen_parts",
    "gather",
    "global_statistics",
    "lacks_processes",
    "mean_over_devices",
    "own_copy",
    "own_part",
    "own_places",
    "own_rows",
    "own_statistics",
    "predict_alone",
    "process",
    "read_images",
    "read_labelled",
    "replicas",
    "select",
    "set_trainable",
    "set_weights",
    "share_weights",
    "started_devices",
    "train_step",
    "with_monitors",
]
