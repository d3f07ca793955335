"""Evaluation of representations."""

from kerassl.evaluation.knn import Neighbours, knn
from kerassl.evaluation.representation import effective_rank, feature_spread

__all__ = ["Neighbours", "effective_rank", "feature_spread", "knn"]
