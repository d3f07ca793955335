"""Communication between devices: gather, mean, and local rows."""

import functools
import sys
from typing import Any

import keras
from keras import ops

from kerassl.distributed.topology import process, replica, replicas


def gather(features: Any) -> Any:
    """Concatenates the features of all devices along the first axis.

    Use it for every statistic across samples (in-batch negatives,
    cross-correlations, Sinkhorn, queues), so that N devices compute the same
    as one. Each row's gradient, of the sum of all devices' losses, flows back
    to the device that the row came from; the step then divides by the number of
    devices. On one device, and on JAX, where the jitted step sees the global
    batch, it is the identity.

    Args:
        features: tensor of shape `(N, ...)`, with the same N on all devices.

    Returns:
        A tensor of shape `(devices * N, ...)`, in the order of the ranks.

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
        # `all_gather` loses the static shape.
        return ops.reshape(
            found, (-1 if count is None else count * replicas(), *rest)
        )
    return _torch_functions()[0].apply(features)


def mean_over_devices(values: Any) -> Any:
    """Returns the mean of a tensor over all devices.

    Gradients flow back to all devices, as in `gather`.

    Args:
        values: tensor, of the same shape on all devices.

    Returns:
        A tensor of that shape.
    """
    if replicas() == 1:
        return values
    if keras.backend.backend() == "tensorflow":
        return _context().all_reduce("MEAN", values)
    return _torch_functions()[1].apply(values)


def local_rows(gathered: Any) -> Any:
    """Returns this device's rows of a result of `gather`.

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
    """Returns the indices of this device's rows in the result of `gather`.

    Args:
        features: tensor of shape `(N, ...)`.

    Returns:
        An int tensor `(N,)`; `None` on one device, which has all rows.
    """
    if replicas() == 1:
        return None
    count = ops.shape(features)[0]
    return local_rows(ops.arange(count * replicas()))


def scale_loss_for_keras(loss: Any) -> Any:
    """Scales a loss for the way Keras combines replicas.

    On TensorFlow Keras sums the gradients of the replicas and multiplies the
    logged loss by their number; on the other backends gradients are averaged.

    Args:
        loss: scalar tensor, the mean over devices.

    Returns:
        A scalar tensor, for `compute_loss` to return.
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
            rank, processes = process()
            parts = list(gradients[0].contiguous().chunk(processes))
            own = torch.empty_like(parts[rank])
            try:
                distributed.reduce_scatter(own, parts)
            except RuntimeError:  # Older versions of gloo can't.
                total = torch.cat(parts)
                distributed.all_reduce(total)
                return total.chunk(processes)[rank]
            return own

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
