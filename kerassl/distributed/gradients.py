"""Gradients of the global batch, where Keras leaves each device its own."""

import contextlib
import functools
from collections.abc import Iterable, Iterator
from typing import Any

import keras

from kerassl.distributed import buckets
from kerassl.distributed.topology import replicas


@contextlib.contextmanager
def global_gradients(model: Any) -> Iterator[None]:
    """Makes the optimizer see the gradients of the global batch.

    On PyTorch Keras leaves each process its own gradients; here the backward
    pass averages them, unless they only accumulate in this step. On TensorFlow
    Keras sums them, but after clipping and the check for overflows: for an
    optimizer that does either, they are summed before. On JAX, and on one
    device, it does nothing.

    Args:
        model: a compiled `keras.Model`.

    Raises:
        ValueError: if the optimizer accumulates gradients on several devices
            of TensorFlow.
    """
    if replicas() == 1:
        yield
    elif keras.backend.backend() == "torch":
        parameters = [v.value for v in model.trainable_variables]
        if _updates(model.optimizer):
            with buckets.averaged(parameters, _own_sums(model.optimizer)):
                yield
        else:
            yield
    elif _accumulates(model.optimizer):
        raise ValueError(
            "On several devices TensorFlow can't accumulate gradients. Leave "
            "out the optimizer's `gradient_accumulation_steps`: more devices "
            "hold a larger batch. JAX and PyTorch can do both."
        )
    elif _looks_at_gradients(model.optimizer):
        with _added_up(model.optimizer):
            yield
    else:
        yield


def share_accumulated(model: Any) -> None:
    """Averages the gradients that processes of PyTorch have accumulated.

    Between two updates each process adds up its own. Afterwards all of them
    hold the same, so that the first one's checkpoint holds everything.

    Args:
        model: a compiled `keras.Model`.
    """
    if replicas() > 1 and keras.backend.backend() == "torch":
        buckets.average(_own_sums(model.optimizer))


def _own_sums(optimizer: Any) -> list[Any]:
    """Returns the tensors in which an optimizer accumulates gradients.

    There are none for `LossScaleOptimizer`: it skips a step whose gradients
    aren't finite, and all processes have to skip the same.
    """
    if not optimizer.gradient_accumulation_steps:
        return []
    return [
        variable.value.detach()
        for variable in optimizer.variables
        if variable.name.endswith("gradient_accumulator")
    ]


def _updates(optimizer: Any) -> bool:
    """Returns whether the optimizer changes the weights in this step.

    `optimizer.iterations` doesn't count micro-steps. Keras waits for the same
    number.
    """
    steps = optimizer.gradient_accumulation_steps
    if not steps:
        return True
    count = next(v for v in optimizer.variables if v.name == "iteration")
    return (int(count.value) + 1) % steps == 0


def _parts(optimizer: Any) -> list[Any]:
    """Returns the optimizers inside a `LossScaleOptimizer` or `MultiOptimizer`.

    Any other optimizer is its own only part.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    return getattr(optimizer, "optimizers", [optimizer])


def _accumulates(optimizer: Any) -> bool:
    return any(part.gradient_accumulation_steps for part in _parts(optimizer))


def _looks_at_gradients(optimizer: Any) -> bool:
    """Returns whether it clips gradients or checks them for overflows."""
    return isinstance(optimizer, keras.optimizers.LossScaleOptimizer) or any(
        limit is not None
        for part in _parts(optimizer)
        for limit in (part.clipnorm, part.global_clipnorm, part.clipvalue)
    )


@contextlib.contextmanager
def _added_up(optimizer: Any) -> Iterator[None]:
    """Gives the first device the summed gradients, and the others zeros.

    Keras sums once more after clipping and the check for overflows. All devices
    keep values that aren't finite, so that all of them skip the step.
    """
    import tensorflow as tf

    # The class's method: another device's thread may have replaced this one's.
    apply = functools.partial(type(optimizer).apply_gradients, optimizer)

    def apply_sums(pairs: Iterable[tuple[Any, Any]]) -> Any:
        gradients, variables = zip(*pairs)
        context = tf.distribute.get_replica_context()
        is_first = tf.equal(context.replica_id_in_sync_group, 0)
        # Gradients of embeddings are sparse; missing gradients stay `None`.
        own = [tf.convert_to_tensor(x) for x in gradients if x is not None]
        sums = iter(context.all_reduce("SUM", own))

        def share() -> Any:
            x = next(sums)
            return tf.where(
                is_first | ~tf.math.is_finite(x), x, tf.zeros_like(x)
            )

        shares = [None if x is None else share() for x in gradients]
        return apply(zip(shares, variables))

    optimizer.apply_gradients = apply_sums
    try:
        yield
    finally:
        vars(optimizer).pop("apply_gradients", None)
