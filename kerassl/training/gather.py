"""Features of the global batch, on one device or many."""

import sys
from typing import Any

import keras


def gather(features: Any) -> Any:
    """Returns the features of all devices' batches, along the first axis.

    Every statistic across samples (in-batch negatives, cross-correlations,
    Sinkhorn, queues) goes through it, so that N devices equal one. Gradients
    flow back to the device that each row came from. On one device, and on JAX
    where the jitted step sees the global batch already, it is the identity.

    Args:
        features: tensor of shape `(N, ...)`, N equal on all devices.

    Returns:
        A tensor of shape `(devices * N, ...)`, the devices in rank order.

    Example:
    ```python
    projections = kerassl.training.gather(outputs["projection_1"])
    ```
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        tf = sys.modules["tensorflow"]
        replica = tf.distribute.get_replica_context()
        if replica is not None and replica.num_replicas_in_sync > 1:
            return replica.all_gather(features, axis=0)
    elif backend == "torch":
        distributed = sys.modules["torch"].distributed
        if distributed.is_available() and distributed.is_initialized():
            from torch.distributed.nn.functional import all_gather

            return sys.modules["torch"].cat(all_gather(features))
    return features
