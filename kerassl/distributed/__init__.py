"""Training on several devices: topology and communication."""

from kerassl.distributed.collectives import (
    gather,
    local_indices,
    local_rows,
    mean_over_devices,
    scale_loss_for_keras,
)
from kerassl.distributed.gradients import (
    global_gradients,
    share_accumulated,
)
from kerassl.distributed.processes import (
    any_process,
    copy_variables,
    failures,
    from_all_processes,
    in_step,
    local_copy,
    on_one_device,
    predict_on_one_device,
    process_shard,
    share_weights,
)
from kerassl.distributed.topology import (
    DeviceSeedGenerator,
    batch_parts,
    device_count,
    devices,
    lacks_processes,
    process,
    replicas,
    started_devices,
)

__all__ = [
    "DeviceSeedGenerator",
    "any_process",
    "batch_parts",
    "copy_variables",
    "device_count",
    "devices",
    "failures",
    "from_all_processes",
    "gather",
    "global_gradients",
    "in_step",
    "lacks_processes",
    "local_copy",
    "local_indices",
    "local_rows",
    "mean_over_devices",
    "on_one_device",
    "predict_on_one_device",
    "process",
    "process_shard",
    "replicas",
    "scale_loss_for_keras",
    "share_accumulated",
    "share_weights",
    "started_devices",
]
