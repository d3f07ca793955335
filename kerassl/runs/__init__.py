"""Runs: pretraining that leaves a folder, and its evaluation."""

from kerassl.runs.evaluate import Evaluation, load_encoder, protocol
from kerassl.runs.run import (
    DivergedError,
    Run,
    environment,
    read_settings,
    resume,
    start,
)

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
