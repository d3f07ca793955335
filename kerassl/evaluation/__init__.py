"""How good features are: kNN, linear probe, fine-tuning, and statistics."""

from kerassl.evaluation.few_labels import few_labels
from kerassl.evaluation.fine_tuning import fine_tune
from kerassl.evaluation.knn import Neighbors, knn
from kerassl.evaluation.linear import linear_probe
from kerassl.evaluation.representation import (
    alignment,
    effective_rank,
    feature_spread,
    uniformity,
)

__all__ = [
    "Neighbors",
    "alignment",
    "effective_rank",
    "feature_spread",
    "few_labels",
    "fine_tune",
    "knn",
    "linear_probe",
    "uniformity",
]
