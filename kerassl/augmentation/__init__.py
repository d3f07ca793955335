"""Views: random crops, colors and blurs of images, made by a few matmuls."""

from kerassl.augmentation.augmenter import ViewAugmenter
from kerassl.augmentation.channels import (
    ChannelDrop,
    ChannelJitter,
    GaussianNoise,
    RandomVerticalFlip,
    any_channels,
)
from kerassl.augmentation.multi_crop import dino, swav
from kerassl.augmentation.operation import Operation, SpatialOperation
from kerassl.augmentation.operations import (
    CenterCrop,
    ColorJitter,
    GaussianBlur,
    RandomGrayscale,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
    Solarize,
)
from kerassl.augmentation.papers import (
    byol,
    context_prediction,
    crop_flip,
    jigsaw,
    moco_v1,
    moco_v2,
    simclr,
)
from kerassl.augmentation.tiles import TileAugmenter
from kerassl.augmentation.view import View

__all__ = [
    "CenterCrop",
    "ChannelDrop",
    "ChannelJitter",
    "ColorJitter",
    "GaussianBlur",
    "GaussianNoise",
    "Operation",
    "RandomGrayscale",
    "RandomHorizontalFlip",
    "RandomResizedCrop",
    "RandomVerticalFlip",
    "Resize",
    "Solarize",
    "SpatialOperation",
    "TileAugmenter",
    "View",
    "ViewAugmenter",
    "any_channels",
    "byol",
    "context_prediction",
    "crop_flip",
    "dino",
    "jigsaw",
    "moco_v1",
    "moco_v2",
    "simclr",
    "swav",
]
