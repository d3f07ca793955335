"""Predictive methods: guess what was done to an image."""

from kerassl.methods.predictive.context_prediction import ContextPrediction
from kerassl.methods.predictive.jigsaw import Jigsaw
from kerassl.methods.predictive.rotation import Rotation

__all__ = ["ContextPrediction", "Jigsaw", "Rotation"]
