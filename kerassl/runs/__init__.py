"""Pretraining runs in folders, and the evaluation of encoders."""

from kerassl.environment import environment
from kerassl.run_folder import read_history, read_settings
from kerassl.run_lock import InUseError
from kerassl.runs.evaluate import Evaluation, earlier_scores
from kerassl.runs.features import FeatureFile
from kerassl.runs.monitoring import guard, monitors, tensorboard
from kerassl.runs.preset import save_preset
from kerassl.runs.protocols import protocol
from kerassl.runs.rivals import open_rival
from kerassl.runs.run import DivergedError, Run, SaveError
from kerassl.runs.search import Search
from kerassl.runs.starting import resume, start

__all__ = [
    "DivergedError",
    "Evaluation",
    "FeatureFile",
    "InUseError",
    "Run",
    "SaveError",
    "Search",
    "earlier_scores",
    "environment",
    "guard",
    "monitors",
    "open_rival",
    "protocol",
    "read_history",
    "read_settings",
    "resume",
    "save_preset",
    "start",
    "tensorboard",
]
