"""Evaluation of representations."""

from kerassl.evaluation.knn import knn
from kerassl.evaluation.representation import effective_rank, feature_spread

__all__ = ["effective_rank", "feature_spread", "knn"]
