"""N devices equal one: the same losses, gradients and steps."""

import functools
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from kerassl import distributed, recipes
from kerassl.distributed import topology
from kerassl.runs.steps import steps_per_epoch
from tests import xla
from tests.backends import more, once
from tests.contracts.methods import METHODS
from tests.distributed import worker
from tests.distributed.cluster import cluster

ROOT = Path(__file__).parents[2]
BACKEND = keras.backend.backend()

# Methods whose loss compares samples of the batch, each in its own way.
ACROSS = ["simclr", "moco_v3", "swav", "barlow_twins", "vicreg"]
ACROSS += ["supcon", "lejepa", "visreg", "emp_ssl", "dinov2"]
# Those whose devices exchange more than gradients and batch statistics.
EXCHANGING = [*ACROSS, "moco_v2", "moco_shuffled", "nnclr", "context_encoder"]
EXCHANGING += ["dino", "ibot", "distillation", "simmim"]
# Of those, the slow ones: with ViTs, and with many views.
SLOW = ["dinov2", "ibot", "emp_ssl"]
# What is exchanged in each way, on every backend.
EVERYWHERE = ["simclr", "swav", "moco_v2", "context_encoder"]
TWO = more("the same methods on two devices")
ONCE = more("PyTorch's run, and a method of each way", always_on="torch")
OTHERS = more("methods that exchange more")
# With 16 images, each of 4 or 8 devices has 4 or 2.
PROCESSES = "processes"
FIRST = "first_gradient"
MODEL_PARALLEL = "model_parallel"
WITHOUT_GATHER = "without_gather"
CASES = [
    *(
        (method, 2)
        if method in EVERYWHERE
        else pytest.param(
            method,
            2,
            marks=ONCE if method in {*EXCHANGING} - {*SLOW} else OTHERS,
        )
        for method in [*METHODS, "moco_shuffled"]
    ),
    *(
        pytest.param(method, 4, marks=TWO)
        for method in ["simclr", "moco_v2", "context_encoder"]
    ),
    ("simclr_clipped", 2),
    ("simclr_lars", 2),
    *([("simclr_accumulated", 2)] if BACKEND != "tensorflow" else []),
    # On PyTorch each device is a process, which takes seconds to start.
    *(
        pytest.param(method, 8, marks=TWO)
        for method in ["swav", "barlow_twins"]
        if BACKEND != "torch"
    ),
    # Two processes with one device each, as always on PyTorch; two on JAX.
    *(
        (method, PROCESSES)
        for method in ["simclr", "moco_v2", "rotation"]
        if BACKEND != "torch"
    ),
    *([("mae", MODEL_PARALLEL)] if BACKEND == "jax" else []),
]
# Other numbers of devices for all methods: "4,8" takes half an hour.
for number in filter(None, os.environ.get("KERASSL_DEVICES", "").split(",")):
    every = [(method, int(number)) for method in METHODS]
    CASES += [case for case in every if case not in CASES]


def start(folder, count, *methods, **variables):
    """Starts one worker; on PyTorch one per device."""
    command = [sys.executable, "-m"]
    if BACKEND == "torch" and count > 1:
        command += ["torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", str(count), "-m"]
    command += ["tests.distributed.worker", str(folder), str(count), *methods]
    name = f"{count}_{methods[0]}_{len(list(folder.glob('*.log')))}.log"
    with open(folder / name, "w") as log:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ
            | {
                "KERAS_BACKEND": BACKEND,
                "JAX_ENABLE_X64": "1",
                "XLA_FLAGS": xla.flags(1),
                "OMP_NUM_THREADS": "1",
                **variables,
            },
            stdout=log,
            stderr=subprocess.STDOUT,
        )


@pytest.fixture(scope="module")
def runs(request, tmp_path_factory):
    """One worker per number of devices, for the selected tests.

    But on PyTorch not for one device, which is the test's own process.
    """
    folder = tmp_path_factory.mktemp("devices")
    selected = [
        item.callspec.params
        for item in request.session.items
        if getattr(item, "module", None) is request.module
        and hasattr(item, "callspec")
    ]
    wanted: dict = {}
    for case in selected:
        for count in (1, case["count"]):
            methods = wanted.setdefault(count, [])
            if case["method"] not in methods:
                methods.append(case["method"])
    for method in wanted[1]:
        keras.utils.set_random_seed(1)
        worker.save(method, folder)
    if BACKEND == "torch":
        del wanted[1]  # `run_here` runs these.
    # Gather can't be had back, so that what runs without it comes last.
    with_two = [x for x in (MODEL_PARALLEL, WITHOUT_GATHER) if x in wanted]
    for key in with_two:
        wanted.setdefault(2, []).extend([key, *wanted.pop(key)])
    processes = {}
    for count, methods in wanted.items():
        if count == PROCESSES:
            each = 2 if BACKEND == "jax" else 1
            for rank, variables in enumerate(cluster(2)):
                variables["JAX_NUM_CPU_DEVICES"] = str(each)
                processes[count, rank] = start(
                    folder, 2 * each, count, *methods, **variables
                )
            processes[count] = processes[count, 0]
        else:
            processes[count] = start(folder, count, *methods)
    processes |= {key: processes[2] for key in with_two}
    yield folder, processes
    for process in processes.values():
        process.kill()
        process.wait()


@functools.cache
def run_here(method, folder):
    return worker.run(method, folder, None)


def arrays_from(runs, method, count):
    folder, processes = runs
    if count not in processes:
        return run_here(method, folder)
    status = processes[count].wait(timeout=1200)
    target = folder / f"{method}_{count}.npz"
    if not target.exists():
        error = target.with_suffix(".txt")
        text = error.read_text() if error.exists() else ""
        for log in folder.glob("*.log"):
            text += log.read_text()[-2000:]
        pytest.fail(f"{method}, {count}, {status}:\n{text}", pytrace=False)
    with np.load(target) as arrays:
        return dict(arrays)


def distance(ours, theirs):
    difference = np.linalg.norm(np.asarray(ours, "float64") - theirs)
    return difference / np.linalg.norm(ours)


def differences(one, many):
    """Returns the names of unequal arrays, each with the difference."""
    assert set(one) == set(many)
    found = {}
    whole = np.linalg.norm(
        [np.linalg.norm(v) for n, v in one.items() if n.startswith(FIRST)]
    )
    for name, value in one.items():
        if name.startswith("loss"):
            # SimSiam's loss, a mean of cosines, may be near 0.
            if many[name] != pytest.approx(float(value), rel=1e-5, abs=1e-6):
                found[name] = float(value), float(many[name])
        # The gradient of a bias before a normalization is rounding only, of
        # losses in float32.
        elif name.startswith(FIRST):
            rounding = max(1e-6, 1e-7 * whole)
            if (
                np.linalg.norm(value) > rounding
                and not distance(value, many[name]) < 1e-4
            ):
                found[name] = distance(value, many[name])
        elif name == "features" and not distance(value, many[name]) < 1e-5:
            found[name] = distance(value, many[name])
    # Parameters are compared as a whole; so are queues, momentum networks and
    # statistics.
    for kind in ("last_parameter", "last_state"):
        names = sorted(name for name in one if name.startswith(kind))
        ours, theirs = (
            np.concatenate([run[name].ravel() for name in names])
            for run in (one, many)
        )
        if not distance(ours, theirs) < 1e-5:
            found[kind] = distance(ours, theirs)
    return found


@pytest.mark.parametrize(("method", "count"), CASES)
def test_devices_equal_one(method, count, runs):
    one, many = (arrays_from(runs, method, n) for n in (1, count))
    assert not differences(one, many)
    if method == "simclr" and (count == PROCESSES or BACKEND == "torch"):
        # The first process draws the picture.
        assert (runs[0] / f"{method}_{count}" / "epoch_0001.png").exists()


@once
@pytest.mark.parametrize(
    ("method", "count"),
    [
        pytest.param(
            *(method, WITHOUT_GATHER),
            marks=() if method in ("simclr", "swav") else more("two methods"),
        )
        for method in ACROSS
    ],
)
def test_without_gather_they_differ(method, count, runs):
    one, many = (arrays_from(runs, method, n) for n in (1, count))
    found = differences(one, many)
    assert "loss_0" in found and "last_parameter" in found
    assert any(name.startswith("first_gradient") for name in found)


OVERFLOW = """
import types

import keras
import tensorflow as tf

from kerassl import distributed, layers, training
from kerassl.distributed import global_gradients

with distributed.devices(2):
    weight = keras.Variable([1.0, 2.0])
    sgd = keras.optimizers.SGD(1.0)
    optimizer = keras.optimizers.LossScaleOptimizer(sgd, initial_scale=4.0)
    optimizer.build([weight])
model = types.SimpleNamespace(optimizer=optimizer)


@tf.function
def step(overflow):
    replica = tf.distribute.get_replica_context().replica_id_in_sync_group
    gradient = tf.constant([2.0, 6.0]) * tf.where(replica == 1, overflow, 1.0)
    with global_gradients(model):
        optimizer.apply_gradients([(gradient, weight)])


strategy = sgd._distribution_strategy
for overflow in (float("inf"), 1.0):
    strategy.run(step, args=(tf.constant(overflow),))
    for variable in (weight, sgd.iterations, optimizer.dynamic_scale):
        values = strategy.experimental_local_results(variable.value)
        print([value.numpy().tolist() for value in values])
"""


@pytest.mark.skipif(BACKEND != "tensorflow", reason="Keras does it elsewhere")
def test_an_overflow_on_one_device_is_one_on_all():
    found = subprocess.run(
        [sys.executable, "-c", OVERFLOW],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    # The second step is (2 + 2, 6 + 6) / 2, since the scale was halved.
    expected = [[1.0, 2.0]], [0], [2.0], [[-1.0, -4.0]], [1], [2.0]
    lines = [str(value * 2) for value in expected]
    assert found.stdout.splitlines() == lines, found.stderr[-2000:]


@pytest.mark.skipif(BACKEND != "tensorflow", reason="others can")
def test_tensorflow_cannot_accumulate_gradients(monkeypatch):
    from kerassl.distributed import gradients

    monkeypatch.setattr(gradients, "replicas", lambda: 2)
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    for given in (optimizer, keras.optimizers.LossScaleOptimizer(optimizer)):
        model = METHODS["simclr"](worker.tiny_encoder())
        model.compile(given)
        with pytest.raises(ValueError, match="can't accumulate"):
            with gradients.global_gradients(model):
                pass


def test_replicas_draw_other_numbers_from_one_state(monkeypatch):
    drawn = []
    for rank in range(3):
        generator = distributed.DeviceSeedGenerator(7)
        monkeypatch.setattr(topology, "replicas", lambda: 3)
        monkeypatch.setattr(topology, "replica", lambda: rank)
        draws = [
            ops.convert_to_numpy(keras.random.uniform((8,), seed=generator))
            for _ in range(3)
        ]
        drawn += draws
        state = ops.convert_to_numpy(generator.state)
        assert state.tolist() == [7, 3]
    assert len({tuple(numbers) for numbers in drawn}) == 9
    monkeypatch.setattr(topology, "replicas", lambda: 1)
    plain, ours = (
        keras.random.uniform((8,), seed=kind(7))
        for kind in (
            keras.random.SeedGenerator,
            distributed.DeviceSeedGenerator,
        )
    )
    np.testing.assert_array_equal(
        ops.convert_to_numpy(plain), ops.convert_to_numpy(ours)
    )


def test_one_device_is_plain():
    with distributed.devices(1):
        assert distributed.device_count() == distributed.replicas() == 1
        assert distributed.batch_parts() == 1
        assert distributed.process() == (0, 1)
        assert distributed.any_process(True) and not distributed.any_process(
            False
        )
        x = ops.ones((2, 3))
        assert distributed.gather(x) is distributed.local_rows(x) is x
    with pytest.raises(ValueError, match="must be positive"):
        distributed.devices(0).__enter__()


@pytest.mark.skipif(BACKEND != "jax", reason="Keras's meshes of devices")
def test_the_parts_of_a_batch_are_those_of_its_axis():
    lib = keras.distribution
    names = [f"cpu:{number}" for number in range(8)]
    mesh = lib.DeviceMesh((4, 2), ("batch", "model"), names)
    layouts = lib.LayoutMap(mesh)
    for axis, parts in (("batch", 4), ("model", 2)):
        spread = lib.ModelParallel(layout_map=layouts, batch_dim_name=axis)
        with spread.scope():
            assert distributed.batch_parts() == parts
            assert distributed.device_count() == 8
            recipe = recipes.get("simclr").replace(batch_size=parts)
            data = types.SimpleNamespace(images=range(8))
            assert steps_per_epoch(recipe, data) == 8 // parts
    with lib.DataParallel(devices=names).scope():
        assert distributed.batch_parts() == 8
    assert distributed.batch_parts() == 1


def test_devices_that_are_not_there(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    ops.zeros(())  # This fixes the number of devices.
    expected = "torchrun --nproc-per-node 99" if BACKEND == "torch" else "99"
    with pytest.raises(ValueError, match=f"not 99|{expected}"):
        distributed.devices(99).__enter__()


@pytest.mark.skipif(BACKEND != "tensorflow", reason="its variable")
def test_a_cluster_of_one_process_counts_as_one_device(monkeypatch):
    task = {"type": "worker", "index": 0}
    for hosts in (["a:1"], ["a:1", "b:1"]):
        config = {"cluster": {"worker": hosts}, "task": task}
        monkeypatch.setenv("TF_CONFIG", json.dumps(config))
        assert distributed.started_devices() == len(hosts)
    monkeypatch.setenv("TF_CONFIG", "{}")
    assert distributed.started_devices() == 1
