"""Views: random crops, colours and blurs of images, made by a few matmuls."""

from kerassl.augmentation.augmenter import ViewAugmenter
from kerassl.augmentation.parameters import byol, moco_v1, moco_v2, simclr, swav
from kerassl.augmentation.view import View

__all__ = [
    "View",
    "ViewAugmenter",
    "byol",
    "moco_v1",
    "moco_v2",
    "simclr",
    "swav",
]
