"""What tests do differently under one backend, to be quick."""

import functools
import itertools
from collections import Counter, defaultdict
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


def unordered(function: Callable) -> tuple[list[tuple[str, str]], int]:
    """Returns TensorFlow's assignments that may come before or after a read.

    It looks at the graphs as they run, since Grappler takes away some of the
    order that a function was traced with.

    Returns:
        The pairs of an assignment and a read of one variable, and the number
        of all pairs.
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
