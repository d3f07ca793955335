"""What every approach shares: steps, momentum networks, queues, gather."""

from kerassl.training.gather import gather
from kerassl.training.inputs import batch_sizes, check_first_batch
from kerassl.training.momentum import CosineMomentum, MomentumNetwork
from kerassl.training.queue import FeatureQueue
from kerassl.training.step import train_step

__all__ = [
    "CosineMomentum",
    "FeatureQueue",
    "MomentumNetwork",
    "batch_sizes",
    "check_first_batch",
    "gather",
    "train_step",
]
