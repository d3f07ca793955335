"""Several devices, and several processes, that train one model."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

import keras

# Set where JAX is to run in several processes; `keras.distribution.initialize`
# reads it, and two others.
ADDRESSES = "KERAS_DISTRIBUTION_JOB_ADDRESSES"
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
    - TensorFlow: `tf.distribute.MirroredStrategy` over the first devices.
    - PyTorch: the processes that `torchrun` started, one for each device, on
      one host or several, with NCCL between GPUs and gloo between CPUs.

    Of several processes each gives `fit` its part of the data (`own_part`), and
    all must draw the same initial weights: set one random seed.

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
    with kerassl.training.devices(8):
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
    """Returns the number of processes that torchrun started; else 1."""
    if keras.backend.backend() == "torch":
        return int(os.environ.get("WORLD_SIZE", 1))
    return 1


def lacks_processes(count: int) -> bool:
    """Says whether PyTorch must be started anew, by torchrun, for devices."""
    return (
        keras.backend.backend() == "torch"
        and count > 1
        and "WORLD_SIZE" not in os.environ
    )


def process() -> tuple[int, int]:
    """Returns the place of this process among those that train, and how many.

    On TensorFlow one process serves all devices.
    """
    if keras.backend.backend() == "jax":
        jax = sys.modules["jax"]
        return jax.process_index(), jax.process_count()
    if keras.backend.backend() == "torch":
        distributed = sys.modules["torch"].distributed
        if distributed.is_available() and distributed.is_initialized():
            return distributed.get_rank(), distributed.get_world_size()
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


def own_part(batch: Any) -> Any:
    """Returns this process's rows of a batch of all processes.

    Args:
        batch: array `(N, ...)`, N a multiple of the number of processes.

    Raises:
        ValueError: if N is no such multiple.
    """
    place, processes = process()
    if len(batch) % processes:
        raise ValueError(
            f"A batch of {len(batch)} can't be shared out to {processes} "
            "processes. Choose a `batch_size` that is a multiple of it."
        )
    size = len(batch) // processes
    return batch[place * size : (place + 1) * size]


def agree(flag: bool) -> bool:
    """Returns whether the flag is set in any process; all must ask.

    Raises:
        ValueError: on JAX, whose processes can't ask while a step runs.
    """
    if process()[1] == 1:
        return flag
    if keras.backend.backend() == "jax":
        raise ValueError(
            "Runs of several processes are for PyTorch. On JAX, call `fit` in "
            "`kerassl.training.devices`, in each process."
        )
    import torch

    # On the device that Keras chose.
    votes = torch.tensor(float(flag), device=keras.ops.zeros(()).device)
    torch.distributed.all_reduce(votes)
    return bool(votes > 0)


def share_weights(model: keras.Model) -> None:
    """Gives PyTorch's processes the variables of the first one."""
    if replicas() > 1 and keras.backend.backend() == "torch":
        from torch import distributed

        for variable in model.variables:
            distributed.broadcast(variable.value.detach(), src=0)


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
        # Between CPUs; accelerators have their own.
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        if not jax.distributed.is_initialized():
            keras.distribution.initialize()
        found = keras.distribution.list_devices()
        if len(found) != count:
            raise ValueError(
                f"The processes of {ADDRESSES} have {len(found)} devices in "
                f"all, not {count}."
            )
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


@contextlib.contextmanager
def _tensorflow(count: int) -> Iterator[None]:
    import tensorflow as tf

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
