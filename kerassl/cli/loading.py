"""Loads Keras for a command, once there is work for it."""

import contextlib
import os
import sys
from collections.abc import Iterator

from kerassl.cli.errors import UserError

LEVEL = "TF_CPP_MIN_LOG_LEVEL"


def load_keras() -> None:
    """Loads Keras, and TensorFlow where it is installed, without its lines.

    Under every backend Keras loads TensorFlow when it saves a model, and
    TensorFlow then tells of this machine's processor, whatever its log level.
    Whoever sets `TF_CPP_MIN_LOG_LEVEL` to 0 or 1 sees it.

    Raises:
        UserError: if Keras can't be loaded, such as for want of a backend.
    """
    talks = os.environ.setdefault(LEVEL, "2") in ("0", "1")
    with contextlib.nullcontext() if talks else _no_stderr():
        try:
            import keras  # noqa: F401
        except (ImportError, ValueError) as error:
            backend = os.environ.get("KERAS_BACKEND", "the default backend")
            raise UserError(
                f"Keras can't be loaded with {backend}: {error}"
            ) from error
        # After Keras: PyTorch wants to be loaded before TensorFlow.
        with contextlib.suppress(ImportError):
            import tensorflow  # noqa: F401


@contextlib.contextmanager
def _no_stderr() -> Iterator[None]:
    """Drops what is written to stderr, by C++ too, which has no other way."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
