"""Several devices that train one model: how they start, and which is which."""

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

# Set where JAX is to run in several processes; `keras.distribution.initialize`
# reads it, and two others.
PREFIX = "KERAS_DISTRIBUTION"
ADDRESSES = f"{PREFIX}_JOB_ADDRESSES"
# The same for TensorFlow, which reads the cluster from it.
CLUSTER = "TF_CONFIG"
# Seconds after which JAX takes a silent process for dead.
LOST_AFTER = 30
# Between the seeds of two replicas: PyTorch adds up a seed and its count.
STRIDE = 1_000_003


@contextlib.contextmanager
def devices(count: int) -> Iterator[None]:
    """Spreads what is trained in it over devices, each with a part of a batch.

    A model that is made, compiled and fitted in it trains as on one device:
    statistics, negatives and queues are those of the global batch.

    - JAX: `keras.distribution.DataParallel` over the first devices; or over
      those of all processes, where `KERAS_DISTRIBUTION_JOB_ADDRESSES` names
      some (see `keras.distribution.initialize`).
    - TensorFlow: `tf.distribute.MirroredStrategy` over the first devices; or
      `MultiWorkerMirroredStrategy` over the processes that `TF_CONFIG` names,
      with a device each.
    - PyTorch: the processes that `torchrun` started, one for each device, on
      one host or several, with NCCL between GPUs and gloo between CPUs.

    Of several processes each gives `fit` its part of the data
    (`process_shard`). All start with the first one's weights.

    Where there are no accelerators, JAX and TensorFlow split the CPU, which
    serves tests alone.

    Args:
        count: int > 0, the number of devices.

    Yields:
        Nothing.

    Raises:
        ValueError: if there aren't so many devices or processes, with what to
            do.

    Example:
    ```python
    with kerassl.distributed.devices(8):
        model = kerassl.SimCLR(encoder)
        model.compile(kerassl.optimizers.LARS(4.8))
        model.fit(images, batch_size=4096)
    ```
    """
    if count < 1:
        raise ValueError(f"`count` must be positive. Received: {count}")
    backend = keras.backend.backend()
    spread = {"jax": _jax, "tensorflow": _tensorflow, "torch": _torch}[backend]
    with spread(count) if count > 1 else contextlib.nullcontext():
        yield


def started_devices() -> int:
    """Returns how many devices the started processes have; 1 if it is alone."""
    if keras.backend.backend() == "torch":
        return int(os.environ.get("WORLD_SIZE", 1))
    if keras.backend.backend() == "tensorflow":
        return max(1, len(_tasks(json.loads(os.environ.get(CLUSTER, "{}")))))
    return len(_jax_devices()) if ADDRESSES in os.environ else 1


def lacks_processes(count: int) -> bool:
    """Says whether PyTorch must be started anew, by torchrun, for devices."""
    return (
        keras.backend.backend() == "torch"
        and count > 1
        and "WORLD_SIZE" not in os.environ
    )


def process() -> tuple[int, int]:
    """Returns this process's place among those that train, and how many."""
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
    """Returns the number of devices that a batch is shared out to."""
    if keras.backend.backend() == "jax":
        spread = keras.distribution.distribution()
        return 1 if spread is None else spread.device_mesh.devices.size
    if keras.backend.backend() == "tensorflow":
        distribute = sys.modules["tensorflow"].distribute
        return distribute.get_strategy().num_replicas_in_sync
    return replicas()


def replicas() -> int:
    """Returns how many copies of the model run this code side by side.

    On JAX it is always one, since its step is one program over all devices; on
    TensorFlow outside of a step.
    """
    if keras.backend.backend() == "tensorflow":
        distribute = sys.modules["tensorflow"].distribute
        context = distribute.get_replica_context()
        return 1 if context is None else context.num_replicas_in_sync
    return process()[1] if keras.backend.backend() == "torch" else 1


def replica() -> Any:
    """Returns the place of this copy of the model, an int or a scalar."""
    if keras.backend.backend() == "tensorflow":
        distribute = sys.modules["tensorflow"].distribute
        context = distribute.get_replica_context()
        return 0 if context is None else context.replica_id_in_sync_group
    return process()[0]


class DeviceSeedGenerator(keras.random.SeedGenerator):
    """A seed generator from which each replica draws other numbers.

    Its state is the same on all of them, so that a checkpoint goes on with
    another number of devices. Where all must draw alike, take Keras's own.
    """

    def next(self, ordered: bool = True) -> Any:
        """Returns the seed of this replica, and moves on."""
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
        # Too late if a device was used already: told below.
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
    """Returns the devices of all processes, once they have met."""
    import jax

    # Between CPUs; accelerators have their own.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    if not jax.distributed.is_initialized():
        processes, place = (
            int(text) if (text := os.environ.get(f"{PREFIX}_{name}")) else None
            for name in ("NUM_PROCESSES", "PROCESS_ID")
        )
        # As `keras.distribution.initialize`, which waits for a dead process for
        # longer.
        jax.distributed.initialize(
            os.environ[ADDRESSES].split(",")[0],
            processes,
            place,
            heartbeat_timeout_seconds=LOST_AFTER,
        )
    return keras.distribution.list_devices()


def _share_seed() -> None:
    """Lets all processes draw alike: JAX wants the same weights from each.

    Keras takes the seeds of layers from Python's random state. Where one was
    set, the same in all, it stays.
    """
    from jax.experimental import multihost_utils

    own = np.array(random.getstate()[1], "uint32")
    states = multihost_utils.process_allgather(own)
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
        # Too late if a device was used already: told below.
        with contextlib.suppress(RuntimeError):
            tf.config.set_logical_device_configuration(cpu, parts)
    found = [device.name for device in tf.config.list_logical_devices(kind)]
    if len(found) < count:
        raise ValueError(f"TensorFlow sees {len(found)} devices, not {count}.")
    with tf.distribute.MirroredStrategy(found[:count]).scope():
        yield


def _tasks(config: dict[str, Any]) -> list[tuple[str, int]]:
    """Returns the processes that `TF_CONFIG` names, the first one first."""
    cluster = config.get("cluster", {})
    return [
        (kind, place)
        for kind in ("chief", "worker")
        for place in range(len(cluster.get(kind, ())))
    ]


@functools.cache
def _workers() -> Any:
    """Returns a MultiWorkerMirroredStrategy that Keras 3's `fit` works with.

    Its own doesn't: https://github.com/keras-team/keras/issues/20585
    """
    import tensorflow as tf

    class Workers(tf.distribute.MultiWorkerMirroredStrategy):
        def experimental_distribute_dataset(
            self, dataset: Any, options: Any = None
        ) -> Any:
            # Each process brings its part; it isn't to be shared out again.
            return self.distribute_datasets_from_function(lambda _: dataset)

        def reduce(self, reduce_op: Any, value: Any, axis: Any) -> Any:
            if tf.nest.is_nested(value) or self._own(value).shape.rank != 0:
                # A batch, of which Keras wants to know the shapes.
                return tf.nest.map_structure(self._own, value)
            # Keras asks for the mean of losses along axis 0.
            return super().reduce(reduce_op, value, axis=None)

        def _own(self, value: Any) -> Any:
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
    distributed.init_process_group("nccl" if uses_gpu else "gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()
