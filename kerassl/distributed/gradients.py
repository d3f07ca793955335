"""Gradients of the global batch, where Keras leaves each device its own."""

import contextlib
import functools
from collections.abc import Iterable, Iterator
from typing import Any

import keras

from kerassl.distributed.topology import replicas


@contextlib.contextmanager
def global_gradients(model: Any) -> Iterator[None]:
    """Makes the optimizer see the gradients of the global batch.

    On PyTorch Keras leaves each process its own gradients; here the backward
    pass averages them. On TensorFlow Keras sums them, but after clipping and
    the check for overflows: for an optimizer that does either, they are summed
    before. On JAX, and on one device, it does nothing.

    Args:
        model: a compiled `keras.Model`.

    Raises:
        ValueError: if the optimizer accumulates gradients on several devices
            of TensorFlow.
    """
    if replicas() == 1:
        yield
    elif keras.backend.backend() == "torch":
        with _averaged(model.trainable_variables):
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


@contextlib.contextmanager
def _averaged(variables: Iterable[Any]) -> Iterator[None]:
    """Averages each gradient in place, as soon as the backward pass has it."""
    from torch import distributed
    from torch.autograd import Variable

    sent: list[tuple[Any, Any]] = []

    def send(parameter: Any) -> None:
        if not sent:  # Wait for all at the end of the backward pass.
            Variable._execution_engine.queue_callback(receive)
        work = distributed.all_reduce(parameter.grad, async_op=True)
        sent.append((parameter, work))

    def receive() -> None:
        for parameter, work in sent:
            work.wait()
            parameter.grad /= replicas()
        sent.clear()

    hooks = [
        variable.value.register_post_accumulate_grad_hook(send)
        for variable in variables
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


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
