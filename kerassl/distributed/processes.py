"""What several processes do together, and what each does alone."""

import contextlib
import random
import sys
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import keras

from kerassl.distributed.topology import device_count, process, replicas
from kerassl.image_format import remade
from kerassl.networks import set_weights

T = TypeVar("T")

# By the model that was made in `devices`.
_COPIES: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def process_shard(batch: Any) -> Any:
    """Returns this process's rows of a batch of all processes.

    Args:
        batch: array `(N, ...)`, N a multiple of the number of processes.

    Raises:
        ValueError: if N is not such a multiple.
    """
    place, processes = process()
    if len(batch) % processes:
        raise ValueError(
            f"A batch of {len(batch)} can't be shared out to {processes} "
            "processes. Choose a `batch_size` that is a multiple of it."
        )
    size = len(batch) // processes
    return batch[place * size : (place + 1) * size]


def any_process(flag: bool) -> bool:
    """Returns whether the flag is set in any process; all must ask.

    On JAX no step may be running.
    """
    if process()[1] == 1:
        return flag
    if keras.backend.backend() == "jax":
        from jax.experimental import multihost_utils

        return bool(multihost_utils.process_allgather(flag).any())
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        strategy = tf.distribute.get_strategy()
        votes = strategy.run(lambda: tf.constant(float(flag)))
        return bool(strategy.reduce("SUM", votes, axis=None) > 0)
    import torch

    # On the device that Keras chose.
    votes = torch.tensor(float(flag), device=keras.ops.zeros(()).device)
    torch.distributed.all_reduce(votes)
    return bool(votes > 0)


def failures() -> tuple[type[Exception], ...]:
    """Returns what a step raises that fails, or misses another process."""
    if keras.backend.backend() == "tensorflow":
        return RuntimeError, sys.modules["tensorflow"].errors.OpError
    # JAX wraps what comes up between two steps in a `ValueError`.
    return RuntimeError, ValueError


def on_one_device(function: Callable[[], T]) -> T:
    """Calls a function in this process, without devices.

    Other processes needn't call it: Keras makes variables as it saves a model,
    and among several processes of JAX or TensorFlow each would wait for the
    others' one. What it makes stays with one device. Of several processes each
    draws on as if it hadn't been called, and so all alike.

    Args:
        function: callable without arguments.

    Returns:
        What it returns.
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
        # Where there is no strategy.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(function).result()


@contextlib.contextmanager
def _random_state_kept() -> Iterator[None]:
    """Among processes, restores what Keras seeds new layers from."""
    state = random.getstate()
    try:
        yield
    finally:
        if process()[1] > 1:
            random.setstate(state)


def local_copy(model: keras.Model) -> keras.Model:
    """Returns a model to predict with in `on_one_device`: itself, or a copy.

    `predict` of one that was made in `devices` wants a batch that can be shared
    out, and returns the images of all processes. There is one copy, which gets
    the weights anew each time, so that it is compiled once.

    Args:
        model: `keras.Model` that its config describes.
    """
    count = {
        "jax": device_count,
        # Also once `devices` is left.
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


def predict_on_one_device(model: keras.Model, inputs: Any) -> Any:
    """Returns what `model.predict` does, in this process and on one device.

    Args:
        model: `keras.Model` that its config describes.
        inputs: what it takes.
    """
    own = local_copy(model)
    return on_one_device(lambda: own.predict(inputs, verbose=0))


def share_weights(model: keras.Model) -> None:
    """Gives PyTorch's processes the variables of the first one."""
    if replicas() > 1 and keras.backend.backend() == "torch":
        from torch import distributed

        for variable in model.variables:
            distributed.broadcast(variable.value.detach(), src=0)
