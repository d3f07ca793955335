"""Runs: pretraining that leaves a folder, and its evaluation."""

from kerassl.presets import load_encoder
from kerassl.run_folder import environment, read_settings
from kerassl.runs.evaluate import Evaluation, protocol
from kerassl.runs.run import DivergedError, Run, resume, start

__all__ = [
    "DivergedError",
    "Evaluation",
    "Run",
    "environment",
    "load_encoder",
    "protocol",
    "read_settings",
    "resume",
    "start",
]
