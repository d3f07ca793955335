"""Averages over the processes of PyTorch, of many tensors at once."""

import contextlib
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from kerassl.distributed.topology import replicas

# Enough for a fast reduction, and little enough that the first ones travel
# while the backward pass goes on.
BUCKET_BYTES = 25 * 2**20

# For each world of processes, the group in which gradients travel.
_GROUPS: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


@contextlib.contextmanager
def averaged(parameters: Sequence[Any], sums: Sequence[Any]) -> Iterator[None]:
    """Averages gradients over processes during the backward pass.

    A bucket is sent as soon as the backward pass has its last gradient. All
    processes send them in the same order.

    Args:
        parameters: the parameters of the model.
        sums: for each parameter, the tensor that holds the gradients of earlier
            micro-steps in this process, or nothing at all. They are added to
            the gradients, and become zero.
    """
    from torch.autograd import Variable

    # The backward pass begins with the last layers.
    buckets = in_buckets(list(reversed(parameters)))
    place = {id(p): i for i, bucket in enumerate(buckets) for p in bucket}
    earlier = {id(p): total for p, total in zip(parameters, sums)}
    missing = [0] * len(buckets)
    unsent: list[int] = []
    works: list[tuple[Any, Any]] = []

    def arrive(parameter: Any) -> None:
        if not unsent and not works:
            missing[:] = map(len, buckets)
            unsent.extend(range(len(buckets)))
            # Called at the end of the backward pass.
            Variable._execution_engine.queue_callback(finish)
        missing[place[id(parameter)]] -= 1
        while unsent and not missing[unsent[0]]:
            send(unsent.pop(0))

    def send(index: int) -> None:
        # A parameter without a gradient has none in any process.
        used = [p for p in buckets[index] if p.grad is not None]
        for parameter in used if earlier else ():
            parameter.grad += earlier[id(parameter)]
            earlier[id(parameter)].zero_()
        if used:
            flat, parts = _flat([p.grad for p in used])
            for parameter, part in zip(used, parts):
                parameter.grad = part
            works.append((flat, _sum(flat)))

    def finish() -> None:
        while unsent:
            send(unsent.pop(0))
        for flat, work in works:
            work.wait()
            flat /= replicas()
        works.clear()

    hooks = [p.register_post_accumulate_grad_hook(arrive) for p in parameters]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def average(tensors: Sequence[Any]) -> None:
    """Averages tensors over processes in place.

    Args:
        tensors: tensors of the same shapes in all processes.
    """

    def send(flat: Any) -> None:
        _sum(flat).wait()
        flat /= replicas()

    _replace(tensors, send)


def share(tensors: Sequence[Any]) -> None:
    """Replaces tensors by those of the first process.

    Args:
        tensors: tensors of the same shapes in all processes.
    """
    distributed = sys.modules["torch"].distributed
    _replace(tensors, lambda flat: distributed.broadcast(flat, src=0))


def _replace(tensors: Sequence[Any], send: Callable[[Any], Any]) -> None:
    """Changes tensors in buckets, each in place by a function."""
    for bucket in in_buckets(tensors):
        flat, parts = _flat(bucket)
        send(flat)
        for tensor, part in zip(bucket, parts):
            tensor.copy_(part)


def in_buckets(tensors: Sequence[Any]) -> list[list[Any]]:
    """Returns groups of tensors of one dtype, in order.

    A group ends with the tensor that makes it reach `BUCKET_BYTES`.

    Args:
        tensors: sequence of tensors.
    """
    buckets: list[list[Any]] = []
    growing: dict[Any, tuple[list[Any], int]] = {}
    for tensor in tensors:
        bucket, size = growing.pop(tensor.dtype, ([], 0))
        if not bucket:
            buckets.append(bucket)
        bucket.append(tensor)
        size += tensor.numel() * tensor.element_size()
        if size < BUCKET_BYTES:
            growing[tensor.dtype] = bucket, size
    return buckets


def _flat(tensors: Sequence[Any]) -> tuple[Any, list[Any]]:
    """Returns a copy of dense tensors in one, and its parts in their strides.

    PyTorch gives a gradient its parameter's strides, and optimizers that take
    all parameters at once need them to be equal.
    """
    torch = sys.modules["torch"]
    sizes = [tensor.numel() for tensor in tensors]
    flat = torch.cat(
        [t.detach().as_strided((t.numel(),), (1,)) for t in tensors]
    )
    return flat, [
        part.as_strided(tensor.shape, tensor.stride())
        for part, tensor in zip(flat.split(sizes), tensors)
    ]


def _sum(flat: Any) -> Any:
    """Starts to add a tensor up over processes; returns what to wait for.

    In a group of its own: the small reductions of batch normalization, which
    the step waits for, would queue up behind the gradients otherwise.
    """
    distributed = sys.modules["torch"].distributed
    world = distributed.group.WORLD
    if world not in _GROUPS:
        _GROUPS[world] = distributed.new_group()
    return distributed.all_reduce(flat, group=_GROUPS[world], async_op=True)
