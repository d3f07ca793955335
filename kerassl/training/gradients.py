"""Gradients of the global batch, between PyTorch's processes."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras

from kerassl.training.distribution import replicas


@contextlib.contextmanager
def averaged_gradients(model: Any) -> Iterator[None]:
    """A backward pass in it leaves the mean of all processes' gradients.

    In place, and each as soon as it is there, while the pass goes on. On JAX
    and TensorFlow, whose Keras does it, it does nothing.

    Args:
        model: `keras.Model`.
    """
    if keras.backend.backend() != "torch" or replicas() == 1:
        yield
        return
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
        for variable in model.trainable_variables
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
