"""How Keras's layers run during a step: classes lent for its duration."""

from kerassl.execution.batch_norm import local_statistics
from kerassl.execution.lend import LentModel, lending, lent

__all__ = ["LentModel", "lending", "lent", "local_statistics"]
