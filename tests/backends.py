"""What tests do differently under one backend, to be quick."""

from collections.abc import Callable

import keras
import pytest

# For what is slow and the same everywhere: large or many models that are only
# built, and long trainings. That the backends compute alike is what the parity
# and contract tests show.
once = pytest.mark.skipif(
    keras.config.backend() != "torch", reason="seen once, under PyTorch"
)


def compiled(function: Callable) -> Callable:
    """Compiles a function of arrays with JAX, as a training step is.

    JAX would otherwise compile each operation alone, for each shape anew, which
    takes seconds where shapes are drawn at random. Other backends just run it.
    """
    if keras.config.backend() != "jax":
        return function
    import jax

    return jax.jit(function)
