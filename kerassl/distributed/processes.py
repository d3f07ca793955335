"""Work that processes share, and work that each does on its own."""

import contextlib
import itertools
import random
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import keras
import numpy as np

from kerassl.data import ImageData
from kerassl.data.photos import Photos
from kerassl.distributed import buckets
from kerassl.distributed.topology import device_count, process, replicas
from kerassl.models import remade
from kerassl.networks import set_weights

T = TypeVar("T")

# Local copies, keyed by the model that was made inside `devices`.
_COPIES: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def process_shard(batch: Any) -> Any:
    """Returns this process's rows of a global batch, or of a data set.

    Args:
        batch: array `(N, ...)`, with N a multiple of the number of processes;
            or as many images, the result of `kerassl.data.load`.

    Returns:
        An array `(N / processes, ...)`, or images of the same kind, which are
        not decoded.

    Raises:
        ValueError: if N isn't a multiple of the number of processes.
    """
    rank, processes = process()
    count = len(batch.images if isinstance(batch, ImageData) else batch)
    if count % processes:
        raise ValueError(
            f"{count:,} images can't be shared out to {processes} processes. "
            f"Give a multiple of {processes}."
        )
    size = count // processes
    rows = slice(rank * size, (rank + 1) * size)
    if isinstance(batch, (ImageData, Photos)):
        return batch.select(rows)
    return batch[rows]


def any_process(flag: bool) -> bool:
    """Returns whether the flag is set in any process.

    All processes must call it. On JAX no step may be running.

    Args:
        flag: bool, of this process.
    """
    return any(flag for (flag,) in from_all_processes([flag]))


def from_all_processes(numbers: Sequence[int]) -> list[list[int]]:
    """Returns the numbers that each process gives, by rank.

    All processes must call it, with as many numbers each. On JAX no step may be
    running; on PyTorch it doesn't wait for a GPU.

    Args:
        numbers: ints below 2^24.
    """
    rank, processes = process()
    own = [int(number) for number in numbers]
    if processes == 1:
        return [own]
    if keras.backend.backend() == "jax":
        from jax.experimental import multihost_utils

        found = multihost_utils.process_allgather(np.array(own, "int32"))
        return found.tolist()
    rows = [[0] * len(own)] * processes
    rows[rank] = own
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        def add() -> Any:
            context = tf.distribute.get_replica_context()
            return context.all_reduce("SUM", tf.constant(rows, "float32"))

        strategy = tf.distribute.get_strategy()
        total = strategy.experimental_local_results(strategy.run(add))[0]
        return total.numpy().astype(int).tolist()
    import torch
    from torch import distributed

    # With NCCL only, it has to be a tensor on the device that Keras chose.
    is_on_host = "cpu" in distributed.get_backend_config()
    device = "cpu" if is_on_host else keras.ops.zeros(()).device
    total = torch.tensor(rows, device=device)
    distributed.all_reduce(total)
    return total.tolist()


def in_step(
    batches: Iterable[Any], size_of: Callable[[Any], int]
) -> Iterator[Any]:
    """Yields batches, if all processes have as many of the same sizes.

    It asks the other processes before each batch on PyTorch, where they would
    wait for each other forever. On other backends it asks for nothing.

    Args:
        batches: iterable.
        size_of: callable that returns the number of images in a batch.

    Raises:
        ValueError: if the processes' batches differ; in all of them.
    """
    if keras.backend.backend() != "torch" or process()[1] == 1:
        yield from batches
        return
    for step, batch in enumerate(itertools.chain(batches, [None])):
        size = 0 if batch is None else size_of(batch)
        sizes = [size for (size,) in from_all_processes([size])]
        if len(set(sizes)) > 1:
            raise ValueError(
                "All processes must read as many batches, of the same sizes. "
                f"Found in batch {step + 1}, by process: {sizes} images."
            )
        if batch is not None:
            yield batch


def failures() -> tuple[type[Exception], ...]:
    """Returns the exceptions of a step that fails or loses a process."""
    if keras.backend.backend() == "tensorflow":
        return RuntimeError, sys.modules["tensorflow"].errors.OpError
    # JAX wraps errors that occur between two steps in a `ValueError`.
    return RuntimeError, ValueError


def on_one_device(function: Callable[[], T]) -> T:
    """Calls a function in this process, outside of `devices`.

    Other processes needn't call it. Inside `devices`, several processes of JAX
    or TensorFlow would wait for each other whenever one makes a variable, as
    Keras does when it saves a model. Variables made here are on one device.
    With several processes Python's random state is restored afterwards, so
    that all processes keep drawing the same numbers.

    Args:
        function: callable without arguments.

    Returns:
        The function's result.
    """
    with _random_state_kept():
        if device_count() == 1 or keras.backend.backend() == "torch":
            return function()
        if keras.backend.backend() == "jax":
            spread = keras.distribution.distribution()
            keras.distribution.set_distribution(None)
            try:
                return function()
            finally:
                keras.distribution.set_distribution(spread)
        # A new thread has no strategy.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(function).result()


@contextlib.contextmanager
def _random_state_kept() -> Iterator[None]:
    """Restores Python's random state, from which Keras seeds new layers."""
    state = random.getstate()
    try:
        yield
    finally:
        if process()[1] > 1:
            random.setstate(state)


def local_copy(model: keras.Model) -> keras.Model:
    """Returns a model that can predict inside `on_one_device`.

    A model that was made inside `devices` only predicts batches that divide
    evenly, and returns the outputs of all processes. So it is copied; the copy
    is kept and gets new weights on each call, so that it compiles only once.

    Args:
        model: `keras.Model` that can be rebuilt from its config.

    Returns:
        The copy; on one device the model itself.
    """
    count = {
        "jax": device_count,
        # Also valid after `devices` has been left.
        "tensorflow": lambda: model.distribute_strategy.num_replicas_in_sync,
        "torch": lambda: 1,
    }[keras.backend.backend()]
    if count() == 1:
        return model

    def copy() -> keras.Model:
        if model not in _COPIES:
            _COPIES[model] = remade(model)
        set_weights(_COPIES[model], model.get_weights())
        return _COPIES[model]

    return on_one_device(copy)


def copy_variables(
    sources: Sequence[keras.Variable], targets: Sequence[keras.Variable]
) -> None:
    """Copies the values of variables to others made on one device.

    They stay on the device, unless several devices of JAX or TensorFlow hold
    them.

    Args:
        sources: variables of a model.
        targets: as many variables of the same shapes, made in
            `on_one_device`.
    """
    is_spread = device_count() > 1 and keras.backend.backend() != "torch"
    value = keras.ops.convert_to_numpy if is_spread else keras.ops.copy

    def copy() -> None:
        for source, target in zip(sources, targets, strict=True):
            target.assign(value(source))

    on_one_device(copy)


def predict_on_one_device(model: keras.Model, inputs: Any) -> Any:
    """Returns the result of `model.predict` in this process, on one device.

    Args:
        model: `keras.Model` that can be rebuilt from its config.
        inputs: the data for `predict`.
    """
    copy = local_copy(model)
    return on_one_device(lambda: copy.predict(inputs, verbose=0))


def share_weights(model: keras.Model) -> None:
    """Copies the first process's variables to all processes of PyTorch."""
    if replicas() > 1 and keras.backend.backend() == "torch":
        buckets.share([variable.value.detach() for variable in model.variables])
