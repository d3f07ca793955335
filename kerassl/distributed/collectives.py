"""Features and means of the global batch, on one device or many."""

import functools
import sys
from typing import Any

import keras
from keras import ops

from kerassl.distributed.topology import process, replica, replicas


def gather(features: Any) -> Any:
    """Returns the features of all devices' batches, along the first axis.

    Every statistic across samples (in-batch negatives, cross-correlations,
    Sinkhorn, queues) goes through it, so that N devices equal one. Gradients
    flow back to the device that each row came from: of the sum of all devices'
    losses, which the step then divides by the number of devices. On one device,
    and on JAX, where the jitted step sees the global batch already, it is the
    identity.

    Args:
        features: tensor of shape `(N, ...)`, N equal on all devices.

    Returns:
        A tensor of shape `(devices * N, ...)`, the devices in rank order.

    Example:
    ```python
    projections = kerassl.distributed.gather(outputs["projection_1"])
    ```
    """
    if replicas() == 1:
        return features
    if keras.backend.backend() == "tensorflow":
        found = _context().all_gather(features, axis=0)
        count, *rest = features.shape
        # TensorFlow forgets the shape.
        return ops.reshape(
            found, (-1 if count is None else count * replicas(), *rest)
        )
    return _torch_functions()[0].apply(features)


def mean_over_devices(values: Any) -> Any:
    """Returns the mean of a tensor over all devices; gradients as `gather`'s.

    Args:
        values: tensor, of one shape on all devices.
    """
    if replicas() == 1:
        return values
    if keras.backend.backend() == "tensorflow":
        return _context().all_reduce("MEAN", values)
    return _torch_functions()[1].apply(values)


def local_rows(gathered: Any) -> Any:
    """Returns a device's own rows of what `gather` returned.

    Args:
        gathered: tensor of shape `(devices * N, ...)`.

    Returns:
        A tensor of shape `(N, ...)`.
    """
    if replicas() == 1:
        return gathered
    shape = (replicas(), -1, *gathered.shape[1:])
    return ops.reshape(gathered, shape)[replica()]


def local_indices(features: Any) -> Any:
    """Returns where a device's own rows are in what `gather` returns of them.

    Args:
        features: tensor of shape `(N, ...)`.

    Returns:
        An int tensor `(N,)`; `None` if they are all there are.
    """
    if replicas() == 1:
        return None
    count = ops.shape(features)[0]
    return local_rows(ops.arange(count * replicas()))


def scale_loss_for_keras(loss: Any) -> Any:
    """Returns the part of a loss that a replica hands to Keras.

    On TensorFlow Keras sums the gradients of replicas, and multiplies the loss
    that it logs; the others average.

    Args:
        loss: scalar tensor, the mean over devices.
    """
    if keras.backend.backend() == "tensorflow" and replicas() > 1:
        return loss / replicas()
    return loss


def _context() -> Any:
    return sys.modules["tensorflow"].distribute.get_replica_context()


@functools.cache
def _torch_functions() -> tuple[Any, Any]:
    """Returns `gather` and `mean_over_devices` for PyTorch, with gradients."""
    import torch
    from torch import distributed

    class Gather(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, own: Any) -> Any:
            parts = [torch.empty_like(own) for _ in range(process()[1])]
            distributed.all_gather(parts, own.contiguous())
            return torch.cat(parts)

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            total = gradients[0].clone()
            distributed.all_reduce(total)
            place, processes = process()
            return total.chunk(processes)[place]

    class Mean(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, own: Any) -> Any:
            total = own.clone()
            distributed.all_reduce(total)
            return total / process()[1]

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            return Mean.forward(ctx, gradients[0])

    return Gather, Mean
