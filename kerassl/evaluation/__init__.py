"""Evaluation of representations."""

from kerassl.evaluation.knn import knn

__all__ = ["knn"]
