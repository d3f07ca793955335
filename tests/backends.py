"""What tests do differently on some backends, mostly to be quick."""

import functools
import itertools
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import pytest

# For what is slow and doesn't depend on the backend: building large or many
# models, and long trainings. Parity and contract tests show that the backends
# compute the same.
once = pytest.mark.skipif(
    keras.config.backend() != "torch", reason="runs once, on PyTorch"
)


def more(
    covered_by: str,
    always_on: str | None = None,
    always: Sequence[str] = (),
) -> pytest.MarkDecorator:
    """Marks a test that runs only with `scripts/test --all`.

    Args:
        covered_by: str, what covers the same by default.
        always_on: str, a backend on which it runs by default, too.
        always: parameters with which it runs by default, too.
    """
    return pytest.mark.more(covered_by, always_on=always_on, always=always)


def examples(count: int) -> int:
    """Returns Hypothesis's `max_examples`: all with `--all`, else a quarter."""
    return count if "KERASSL_TEST_ALL" in os.environ else max(4, count // 4)


def compiled(function: Callable) -> Callable:
    """Compiles a function of arrays with JAX, as a training step is.

    Otherwise JAX compiles each operation for each shape, which takes seconds
    when shapes are drawn at random. Other backends run the function as it is.
    """
    if keras.config.backend() != "jax":
        return function
    import jax

    return jax.jit(function)


def gradient_of(function: Callable, x: Any) -> np.ndarray:
    """Returns a scalar function's gradient; zeros where none flows."""
    x = keras.ops.convert_to_numpy(x)
    if keras.config.backend() == "jax":
        import jax

        return np.asarray(jax.grad(function)(x))
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        x = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        gradient = tape.gradient(y, x)
        return np.zeros(x.shape) if gradient is None else gradient.numpy()
    import torch

    x = torch.tensor(x, requires_grad=True)
    y = function(x)
    if not y.requires_grad:
        return np.zeros(x.shape)
    y.backward()
    return np.zeros(x.shape) if x.grad is None else x.grad.numpy()


def calls(function: Callable) -> Counter[str]:
    """Counts PyTorch's operations by name, without those that compute nothing.

    On a GPU each is a kernel or, with many tensors, a few. Reading a number
    and sending one are counted too; a GPU makes the host wait for these.
    """
    from torch.utils._python_dispatch import TorchDispatchMode

    counter: Counter[str] = Counter()

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            returns = [r.alias_info for r in function._schema.returns]
            is_view = any(r and not r.is_write for r in returns)
            name = str(function).removeprefix("aten.").split(".")[0]
            if name in WAITS or not (is_view or name in IDLE):
                counter[name] += 1
            return function(*args, **(kwargs or {}))

    with Count():
        function()
    return counter


# A number is read from the device, and sent to it.
WAITS = ("_local_scalar_dense", "lift_fresh")
IDLE = (
    *("empty", "empty_like", "empty_strided", "new_empty_strided"),
    *("_unsafe_view", "detach", "promote_types"),
)


def count_kernels(function: Callable) -> int:
    """Returns how many kernels a function starts on PyTorch, at least."""
    return sum(n for name, n in calls(function).items() if name not in WAITS)


def count_waits(function: Callable) -> int:
    """Returns how often the host would wait for a GPU on PyTorch.

    It waits when it reads a number and when it sends one. Both can be counted
    on a CPU.
    """
    counter = calls(function)
    return sum(counter[name] for name in WAITS)


def unordered(function: Callable) -> tuple[list[tuple[str, str]], int]:
    """Finds assignments whose order with a read is undefined in TensorFlow.

    It inspects the graphs after Grappler, which removes some of the order that
    a function was traced with.

    Returns:
        The unordered pairs of an assignment and a read of the same variable,
        and the number of all pairs.
    """
    from tensorflow.python.eager import context

    context.enable_run_metadata()
    try:
        function()
        metadata = context.export_run_metadata()
    finally:
        context.disable_run_metadata()
    found, count = [], 0
    for graphs in metadata.function_graphs:
        nodes = {n.name: n for n in graphs.post_optimization_graph.node}
        users = defaultdict(list)
        for node in nodes.values():
            if node.op.endswith("VariableOp"):
                users[node.input[0]].append(node)
        earlier = functools.cache(functools.partial(_earlier, nodes))
        for one in users.values():
            writes = [node for node in one if node.op.startswith("Assign")]
            reads = [node for node in one if node.op == "ReadVariableOp"]
            for write, read in itertools.product(writes, reads):
                a, b = write.name, read.name
                count += 1
                if a not in earlier(b) and b not in earlier(a):
                    found.append((a, b))
    return found, count


def _earlier(nodes: dict, name: str) -> set[str]:
    seen, left = set(), [name]
    while left:
        for given in nodes[left.pop()].input:
            given = given.lstrip("^").split(":")[0]
            if given not in seen:
                seen.add(given)
                left.append(given)
    return seen
