"""Keras callbacks for pretraining."""

from kerassl.callbacks.collapse_monitor import CollapseMonitor
from kerassl.callbacks.knn_monitor import KNNMonitor
from kerassl.callbacks.linear_probe_monitor import LinearProbeMonitor
from kerassl.callbacks.preset_check import PresetCheck
from kerassl.callbacks.pretext_pictures import PretextPictures
from kerassl.callbacks.start_guard import StartGuard
from kerassl.training.monitors import Monitor

__all__ = [
    "CollapseMonitor",
    "KNNMonitor",
    "LinearProbeMonitor",
    "Monitor",
    "PresetCheck",
    "PretextPictures",
    "StartGuard",
]
