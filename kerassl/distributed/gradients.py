"""Gradients of the global batch, where Keras gives each device its own."""

import contextlib
import functools
from collections.abc import Iterable, Iterator
from typing import Any

import keras

from kerassl.distributed.topology import replicas


@contextlib.contextmanager
def global_gradients(model: Any) -> Iterator[None]:
    """An optimizer that is called in it sees the gradients of the global batch.

    On PyTorch, where Keras leaves each process its own, a backward pass
    averages them. On TensorFlow Keras adds them up, but only once it has
    clipped them and looked for overflows: where an optimizer does either, they
    are added up before. On JAX, and on one device, it does nothing.

    Args:
        model: a compiled `keras.Model`.

    Raises:
        ValueError: if TensorFlow is to accumulate gradients over the steps of
            several devices.
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
    """In place, and each as soon as it is there, while the pass goes on."""
    from torch import distributed
    from torch.autograd import Variable

    sent: list[tuple[Any, Any]] = []

    def send(parameter: Any) -> None:
        if not sent:  # The end of the pass waits for all.
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
    """Returns what a `LossScaleOptimizer` or `MultiOptimizer` holds."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    return getattr(optimizer, "optimizers", [optimizer])


def _accumulates(optimizer: Any) -> bool:
    return any(part.gradient_accumulation_steps for part in _parts(optimizer))


def _looks_at_gradients(optimizer: Any) -> bool:
    """Says whether it clips gradients, or looks for overflows in them."""
    return isinstance(optimizer, keras.optimizers.LossScaleOptimizer) or any(
        limit is not None
        for part in _parts(optimizer)
        for limit in (part.clipnorm, part.global_clipnorm, part.clipvalue)
    )


@contextlib.contextmanager
def _added_up(optimizer: Any) -> Iterator[None]:
    """The first device brings the sum, and the others zeros.

    Keras adds up once more, after its look at them. What isn't finite comes
    from all, so that all skip the step.
    """
    import tensorflow as tf

    # Not the instance's: the devices' threads take turns in here.
    apply = functools.partial(type(optimizer).apply_gradients, optimizer)

    def apply_sums(pairs: Iterable[tuple[Any, Any]]) -> Any:
        gradients, variables = zip(*pairs)
        context = tf.distribute.get_replica_context()
        is_first = tf.equal(context.replica_id_in_sync_group, 0)
        # Those of embeddings are sparse; where there is none it stays `None`.
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
