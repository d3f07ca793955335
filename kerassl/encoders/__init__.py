"""Encoders by name, and any `keras.Model` or backbone as an encoder."""

from kerassl.encoders.adapt import as_encoder
from kerassl.encoders.assembly import accepted
from kerassl.encoders.build import build, names
from kerassl.encoders.depth import at_random_depth
from kerassl.encoders.embed import (
    checked_images,
    embed,
    features_model,
    image_size,
)
from kerassl.encoders.feature_map import feature_map
from kerassl.encoders.libraries import released
from kerassl.encoders.parts import parts
from kerassl.encoders.sizes import at_size, patch_size
from kerassl.encoders.stages import layer_features, stage_features, stages

__all__ = [
    "accepted",
    "as_encoder",
    "at_random_depth",
    "at_size",
    "build",
    "checked_images",
    "embed",
    "feature_map",
    "features_model",
    "image_size",
    "layer_features",
    "names",
    "parts",
    "patch_size",
    "released",
    "stage_features",
    "stages",
]
