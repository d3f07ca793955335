"""Callbacks that watch a run."""

from kerassl.callbacks.knn_monitor import KNNMonitor

__all__ = ["KNNMonitor"]
