"""Loads Keras for a command, once it is needed."""

import contextlib
import os
import sys
from collections.abc import Iterator

from kerassl.cli.errors import UserError

LEVEL = "TF_CPP_MIN_LOG_LEVEL"


def load_keras(*, saves: bool = True) -> None:
    """Loads Keras, and TensorFlow if installed, without its start-up lines.

    Under every backend Keras loads TensorFlow when it saves a model. TensorFlow
    then prints lines about the processor, whatever its log level. They are
    shown only if `TF_CPP_MIN_LOG_LEVEL` is 0 or 1.

    Args:
        saves: bool. Whether the command may save a model or read TFDS, for
            which TensorFlow is loaded under every backend.

    Raises:
        UserError: if Keras can't be loaded, for example without a backend.
    """
    is_verbose = os.environ.setdefault(LEVEL, "2") in ("0", "1")
    with contextlib.nullcontext() if is_verbose else _no_stderr():
        try:
            import keras
        except (ImportError, ValueError) as error:
            backend = os.environ.get("KERAS_BACKEND", "the default backend")
            raise UserError(
                f"Keras can't be loaded with {backend}: {error}"
            ) from error
        if not saves and keras.config.backend() != "tensorflow":
            return
        # After Keras, since PyTorch must be loaded before TensorFlow.
        with contextlib.suppress(ImportError):
            import tensorflow

            # Otherwise it looks for GPUs, and prints, when it first computes.
            tensorflow.config.list_physical_devices()


@contextlib.contextmanager
def _no_stderr() -> Iterator[None]:
    """Discards what is written to stderr, including what C++ writes."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
