"""The devices that train one model: how they start, count and rank."""

import contextlib
import functools
import json
import os
import random
import sys
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

# Environment variables for several processes of JAX: this one and two others,
# which `keras.distribution.initialize` reads.
PREFIX = "KERAS_DISTRIBUTION"
ADDRESSES = f"{PREFIX}_JOB_ADDRESSES"
# The environment variable that describes TensorFlow's cluster.
CLUSTER = "TF_CONFIG"
# Seconds after which JAX considers a silent process dead.
LOST_AFTER = 30
# The offset between the seeds of two replicas. It is large, since PyTorch adds
# a seed and its count.
STRIDE = 1_000_003


@contextlib.contextmanager
def devices(count: int) -> Iterator[None]:
    """Trains on several devices, each with a part of every batch.

    A model that is made, compiled and fitted inside this context trains as on
    one device: statistics, negatives and queues are those of the global batch.

    - JAX: `keras.distribution.DataParallel` over the first devices; or over
      the devices of all processes if `KERAS_DISTRIBUTION_JOB_ADDRESSES` is set
      (see `keras.distribution.initialize`).
    - TensorFlow: `tf.distribute.MirroredStrategy` over the first devices; or
      `MultiWorkerMirroredStrategy` over the processes in `TF_CONFIG`, with one
      device each.
    - PyTorch: the processes that `torchrun` started, one per device, on one
      host or several, with NCCL between GPUs and gloo between CPUs.

    With several processes, each passes its part of the data to `fit`
    (`process_shard`). All start with the first process's weights.

    Without accelerators JAX and TensorFlow split the CPU into devices, which is
    useful for tests only.

    Args:
        count: int > 0, the number of devices.

    Yields:
        Nothing.

    Raises:
        ValueError: if there are fewer devices, or another number of processes.

    Example:
    ```python
    with kerassl.distributed.devices(8):
        rank, processes = kerassl.distributed.process()
        model = kerassl.SimCLR(encoder)
        model.compile(kerassl.optimizers.LARS(4.8))
        model.fit(
            kerassl.distributed.process_shard(images),
            batch_size=4096 // processes,
        )
    ```
    """
    if count < 1:
        raise ValueError(f"`count` must be positive. Received: {count}")
    backend = keras.backend.backend()
    spread = {"jax": _jax, "tensorflow": _tensorflow, "torch": _torch}[backend]
    with spread(count) if count > 1 else contextlib.nullcontext():
        yield


def started_devices() -> int:
    """Returns the number of devices of all started processes."""
    if keras.backend.backend() == "torch":
        return int(os.environ.get("WORLD_SIZE", 1))
    if keras.backend.backend() == "tensorflow":
        return max(1, len(_tasks(json.loads(os.environ.get(CLUSTER, "{}")))))
    return len(_jax_devices()) if ADDRESSES in os.environ else 1


def lacks_processes(count: int) -> bool:
    """Returns whether this many devices need a start through torchrun."""
    return (
        keras.backend.backend() == "torch"
        and count > 1
        and "WORLD_SIZE" not in os.environ
    )


def process() -> tuple[int, int]:
    """Returns the rank of this process and the number of processes.

    Call it inside `devices`.

    Returns:
        Two ints, `(rank, processes)`: `(0, 1)` with one process.
    """
    if keras.backend.backend() == "jax":
        jax = sys.modules["jax"]
        return jax.process_index(), jax.process_count()
    if keras.backend.backend() == "torch":
        distributed = sys.modules["torch"].distributed
        if distributed.is_available() and distributed.is_initialized():
            return distributed.get_rank(), distributed.get_world_size()
    if keras.backend.backend() == "tensorflow":
        strategy = sys.modules["tensorflow"].distribute.get_strategy()
        if isinstance(strategy, _workers()):
            resolver = strategy.cluster_resolver
            tasks = _tasks({"cluster": resolver.cluster_spec().as_dict()})
            task = resolver.task_type, resolver.task_id
            return tasks.index(task), len(tasks)
    return 0, 1


def device_count() -> int:
    """Returns the number of devices that train the model together."""
    if keras.backend.backend() == "jax":
        spread = keras.distribution.distribution()
        return 1 if spread is None else spread.device_mesh.devices.size
    if keras.backend.backend() == "tensorflow":
        distribute = sys.modules["tensorflow"].distribute
        return distribute.get_strategy().num_replicas_in_sync
    return replicas()


def batch_parts() -> int:
    """Returns the number of parts that a batch is divided into.

    It is less than `device_count` where Keras divides a model, too.
    """
    if keras.backend.backend() == "jax":
        spread = keras.distribution.distribution()
        if spread is not None:
            mesh = spread.device_mesh
            return mesh.shape[mesh.axis_names.index(spread.batch_dim_name)]
    return device_count()


def replicas() -> int:
    """Returns the number of replicas of the model that run this code.

    It is 1 on JAX, whose step is one program over all devices, and on
    TensorFlow outside of a step.
    """
    if keras.backend.backend() == "tensorflow":
        distribute = sys.modules["tensorflow"].distribute
        context = distribute.get_replica_context()
        return 1 if context is None else context.num_replicas_in_sync
    return process()[1] if keras.backend.backend() == "torch" else 1


def replica() -> Any:
    """Returns the index of this replica, an int or a scalar tensor."""
    if keras.backend.backend() == "tensorflow":
        distribute = sys.modules["tensorflow"].distribute
        context = distribute.get_replica_context()
        return 0 if context is None else context.replica_id_in_sync_group
    return process()[0]


class DeviceSeedGenerator(keras.random.SeedGenerator):
    """A seed generator that yields different numbers on each replica.

    Its state is the same on all of them, so a run can resume with another
    number of devices. Use Keras's own class where all must draw the same.
    """

    def next(self, ordered: bool = True) -> Any:
        """Returns this replica's next seed."""
        if ordered and keras.backend.backend() == "torch":
            # Keras sends the increment to the device each time.
            seed = keras.ops.copy(keras.ops.convert_to_tensor(self.state))
            self.state.assign(seed + keras.ops.arange(2, dtype=seed.dtype))
        else:
            seed = super().next(ordered)
        if replicas() == 1:
            return seed
        offset = keras.ops.cast(replica(), seed.dtype) * STRIDE
        return seed + keras.ops.stack([offset, keras.ops.zeros_like(offset)])


@contextlib.contextmanager
def _jax(count: int) -> Iterator[None]:
    import jax

    if ADDRESSES in os.environ:
        found = _jax_devices()
        if len(found) != count:
            raise ValueError(
                f"The processes of {ADDRESSES} have {len(found)} devices in "
                f"all, not {count}."
            )
        _share_seed()
    else:
        # It fails once a device has been used: the count below is then too low.
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", count)
        found = keras.distribution.list_devices()
        if len(found) < count:
            raise ValueError(f"JAX sees {len(found)} devices, not {count}.")
    before = keras.distribution.distribution()
    keras.distribution.set_distribution(
        keras.distribution.DataParallel(
            devices=found[:count], auto_shard_dataset=False
        )
    )
    try:
        yield
    finally:
        keras.distribution.set_distribution(before)


def _jax_devices() -> list[str]:
    """Waits for all processes, and returns their devices."""
    import jax

    # For CPUs; accelerators have their own collectives.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    if not jax.distributed.is_initialized():
        processes, rank = (
            int(text) if (text := os.environ.get(f"{PREFIX}_{name}")) else None
            for name in ("NUM_PROCESSES", "PROCESS_ID")
        )
        # Like `keras.distribution.initialize`, but with a shorter timeout for
        # dead processes.
        jax.distributed.initialize(
            os.environ[ADDRESSES].split(",")[0],
            processes,
            rank,
            heartbeat_timeout_seconds=LOST_AFTER,
        )
    return keras.distribution.list_devices()


def _share_seed() -> None:
    """Gives all processes one random seed, since JAX needs equal weights.

    Keras takes the seeds of layers from Python's random state. If that is equal
    in all processes already, it is kept.
    """
    from jax.experimental import multihost_utils

    state = np.array(random.getstate()[1], "uint32")
    states = multihost_utils.process_allgather(state)
    if (states != states[0]).any():
        keras.utils.set_random_seed(int(states[0, 0]))


@contextlib.contextmanager
def _tensorflow(count: int) -> Iterator[None]:
    import tensorflow as tf

    if started_devices() > 1:
        strategy = _workers()()
        found, processes = strategy.num_replicas_in_sync, started_devices()
        if not found == processes == count:
            raise ValueError(
                f"{CLUSTER} names {processes} processes, and they have {found} "
                f"devices in all. {count} and {count} are needed: let each "
                "process see one device (CUDA_VISIBLE_DEVICES)."
            )
        with strategy.scope():
            yield
        return
    kind = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    if kind == "CPU":
        (cpu, *_) = tf.config.list_physical_devices("CPU")
        parts = [tf.config.LogicalDeviceConfiguration()] * count
        # It fails once a device has been used: the count below is then too low.
        with contextlib.suppress(RuntimeError):
            tf.config.set_logical_device_configuration(cpu, parts)
    found = [device.name for device in tf.config.list_logical_devices(kind)]
    if len(found) < count:
        raise ValueError(f"TensorFlow sees {len(found)} devices, not {count}.")
    with tf.distribute.MirroredStrategy(found[:count]).scope():
        yield


def _tasks(config: dict[str, Any]) -> list[tuple[str, int]]:
    """Returns the processes in `TF_CONFIG`, by rank, as (type, index)."""
    cluster = config.get("cluster", {})
    return [
        (kind, index)
        for kind in ("chief", "worker")
        for index in range(len(cluster.get(kind, ())))
    ]


@functools.cache
def _workers() -> Any:
    """Returns a `MultiWorkerMirroredStrategy` that works with Keras's `fit`.

    The original doesn't: https://github.com/keras-team/keras/issues/20585
    """
    import tensorflow as tf

    class Workers(tf.distribute.MultiWorkerMirroredStrategy):
        def experimental_distribute_dataset(
            self, dataset: Any, options: Any = None
        ) -> Any:
            # Each process has its own data, which must not be split again.
            return self.distribute_datasets_from_function(lambda _: dataset)

        def reduce(self, reduce_op: Any, value: Any, axis: Any) -> Any:
            if tf.nest.is_nested(value) or self._local(value).shape.rank != 0:
                # A batch: Keras only needs its shapes.
                return tf.nest.map_structure(self._local, value)
            # A scalar loss, though Keras asks for a mean along axis 0.
            return super().reduce(reduce_op, value, axis=None)

        def _local(self, value: Any) -> Any:
            return self.experimental_local_results(value)[0]

    return Workers


@contextlib.contextmanager
def _torch(count: int) -> Iterator[None]:
    import torch
    from torch import distributed

    if started_devices() != count:
        raise ValueError(
            f"There are {started_devices()} processes, not {count}. PyTorch "
            "has a process for each device: torchrun --nproc-per-node "
            f"{count} ..."
        )
    uses_gpu = torch.cuda.is_available()
    if uses_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    # Processes with GPUs also agree on things that need no GPU, through gloo.
    distributed.init_process_group("cpu:gloo,cuda:nccl" if uses_gpu else "gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()
