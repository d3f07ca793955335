"""Rules of a ViT's positions for images of another size."""

import functools
from collections.abc import Callable

import numpy as np

from kerassl.layers.positions import bicubic_matrix

# The values of `training["method"]` in a converted DINO and iBOT, whose ViTs
# have their own rule for positions at other sizes.
DINO, IBOT = "DINO", "iBOT"

Matrix = Callable[[int, int], np.ndarray]

# That of `interpolate_pos_encoding` in the authors' `vision_transformer.py`;
# the other one, `bicubic_matrix` as it is, is timm's.
dino_bicubic: Matrix = functools.partial(
    bicubic_matrix, antialias=False, offset=0.1
)
