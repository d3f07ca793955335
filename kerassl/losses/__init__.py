"""Losses: pure functions of arrays that compute in float32, one per file.

Each loss returns what a method's `objective` returns: a dict of float32
scalars with `"loss"` and, where they come with it, metrics.
"""

from kerassl.losses.barlow_twins import barlow_twins, cross_correlation
from kerassl.losses.classification import classification
from kerassl.losses.dino import centered, dino
from kerassl.losses.emp_ssl import coding_rate, emp_ssl
from kerassl.losses.feature_prediction import (
    feature_prediction,
    normalize_features,
)
from kerassl.losses.info_nce import info_nce
from kerassl.losses.inpainting import inpainting, relative_error
from kerassl.losses.koleo import koleo
from kerassl.losses.lejepa import distance_to_center, lejepa, sigreg
from kerassl.losses.masked_distillation import masked_distillation
from kerassl.losses.masked_reconstruction import (
    masked_reconstruction,
    normalize_patches,
    visible_color,
)
from kerassl.losses.negative_cosine import negative_cosine, output_std
from kerassl.losses.nt_xent import nt_xent
from kerassl.losses.similarity_distillation import similarity_distillation
from kerassl.losses.swapped_prediction import sinkhorn, swapped_prediction
from kerassl.losses.unit_vectors import unit_vectors
from kerassl.losses.vicreg import vicreg
from kerassl.losses.visreg import sliced_wasserstein, visreg

__all__ = [
    "barlow_twins",
    "centered",
    "classification",
    "coding_rate",
    "cross_correlation",
    "dino",
    "distance_to_center",
    "emp_ssl",
    "feature_prediction",
    "info_nce",
    "inpainting",
    "koleo",
    "lejepa",
    "masked_distillation",
    "masked_reconstruction",
    "negative_cosine",
    "normalize_features",
    "normalize_patches",
    "nt_xent",
    "output_std",
    "relative_error",
    "sigreg",
    "similarity_distillation",
    "sinkhorn",
    "sliced_wasserstein",
    "swapped_prediction",
    "unit_vectors",
    "vicreg",
    "visible_color",
    "visreg",
]
