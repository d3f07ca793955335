"""Encoders by name, and any `keras.Model` or backbone as an encoder."""

from kerassl.encoders.build import as_encoder, at_size, build, names
from kerassl.encoders.embed import embed, image_size

__all__ = [
    "as_encoder",
    "at_size",
    "build",
    "embed",
    "image_size",
    "names",
]
