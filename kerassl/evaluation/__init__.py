"""How good features are: kNN, linear probe, fine-tuning, and statistics."""

from kerassl.evaluation.corruptions import CORRUPTIONS, corrupt
from kerassl.evaluation.few_labels import few_labels
from kerassl.evaluation.fine_tuning import fine_tune
from kerassl.evaluation.knn import Neighbors, knn
from kerassl.evaluation.linear import linear_probe
from kerassl.evaluation.neighborhoods import neighborhood_agreement
from kerassl.evaluation.representation import (
    alignment,
    effective_rank,
    feature_spread,
    uniformity,
)
from kerassl.evaluation.retrieval import retrieval
from kerassl.evaluation.scenes import scenes
from kerassl.evaluation.segmentation import segmentation_probe

__all__ = [
    "CORRUPTIONS",
    "Neighbors",
    "alignment",
    "corrupt",
    "effective_rank",
    "feature_spread",
    "few_labels",
    "fine_tune",
    "knn",
    "linear_probe",
    "neighborhood_agreement",
    "retrieval",
    "scenes",
    "segmentation_probe",
    "uniformity",
]
