"""What tests do differently under one backend, to be quick."""

from collections import Counter
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


def count_waits(function: Callable) -> int:
    """Returns how often PyTorch would make the host wait for a GPU.

    It does where the host reads a number, and where it sends one: both show on
    a CPU, too.
    """
    from torch.utils._python_dispatch import TorchDispatchMode

    counter: Counter[str] = Counter()

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            counter[str(function)] += 1
            return function(*args, **(kwargs or {}))

    with Count():
        function()
    reads, sends = "aten._local_scalar_dense.default", "aten.lift_fresh.default"
    return counter[reads] + counter[sends]
