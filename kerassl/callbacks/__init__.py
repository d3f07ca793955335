"""Callbacks that watch a run."""

from kerassl.callbacks.knn_monitor import KNNMonitor
from kerassl.callbacks.pretext_pictures import PretextPictures

__all__ = ["KNNMonitor", "PretextPictures"]
