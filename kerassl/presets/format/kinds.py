"""The KerasHub backbones that presets hold."""

from kerassl.presets.format.backbones import Backbone, ResNet, ViT
from kerassl.presets.format.dinov2 import DINOv2

BACKBONES: dict[str, type[Backbone]] = {
    kind.class_name: kind for kind in (ResNet, ViT, DINOv2)
}
