"""Equal results on three backends, from equal views and weights."""

import functools
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from tests import xla
from tests.contracts import parity_worker
from tests.contracts.methods import METHODS

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "torch",
    reason="compared once, from PyTorch's run",
)


def is_installed(backend):
    return importlib.util.find_spec(backend) is not None


@pytest.fixture(scope="module")
def others(request, tmp_path_factory):
    """A process for each other backend, which runs all methods.

    Both at once, and for the selected tests alone. They write to `folder`.
    """
    folder = tmp_path_factory.mktemp("parity")
    selected = [
        item.callspec.params
        for item in request.session.items
        if getattr(item, "module", None) is request.module
    ]
    methods = dict.fromkeys(params["method"] for params in selected)
    for method in methods:
        keras.utils.set_random_seed(1)
        parity_worker.save(method, folder)
    processes = {}
    for backend in {params["backend"] for params in selected}:
        if not is_installed(backend):
            continue
        with open(folder / f"{backend}.log", "w") as log:
            processes[backend] = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "tests.contracts.parity_worker",
                    str(folder),
                    *methods,
                ],
                cwd=ROOT,
                env=os.environ
                | {
                    "KERAS_BACKEND": backend,
                    "JAX_ENABLE_X64": "1",
                    "XLA_FLAGS": xla.flags(1),
                },
                stdout=log,
                stderr=subprocess.STDOUT,
            )
    yield folder, processes
    for process in processes.values():
        process.kill()
        process.wait()


@functools.cache
def run_here(method, folder):
    return parity_worker.run(method, folder)


def arrays_from(others, method, backend):
    """Waits for the process and reads its results."""
    folder, processes = others
    status = processes[backend].wait(timeout=1200)
    target = folder / f"{method}_{backend}.npz"
    if not target.exists():
        error = target.with_suffix(".txt")
        if not error.exists():
            error = folder / f"{backend}.log"
        pytest.fail(
            f"{method} gave no result on {backend} (exit status {status}):\n"
            f"{error.read_text()[-4000:]}",
            pytrace=False,
        )
    with np.load(target) as arrays:
        return dict(arrays)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("backend", ["jax", "tensorflow"])
def test_losses_gradients_and_steps_agree(method, backend, others):
    if not is_installed(backend):
        pytest.skip(f"{backend} is not installed")
    here = run_here(method, others[0])
    there = arrays_from(others, method, backend)
    assert set(there) == set(here)
    for name, ours in here.items():
        theirs = there[name]
        if name.startswith("loss"):
            # SimSiam's loss, a mean of cosines, may be near 0.
            assert ours == pytest.approx(float(theirs), rel=1e-5, abs=3e-6), (
                name
            )
        # The gradient of a bias before a normalization is rounding only.
        elif name.startswith("first") and np.linalg.norm(ours) > 1e-6:
            assert distance(ours, theirs) < 1e-5, name
    # After the steps the model is compared as a whole. An offset that started
    # at 0 is small, so a single ReLU that rounding flips changes it by more
    # than 1e-4.
    for kind in ("last_parameter", "last_state"):
        ours, theirs = (
            np.concatenate(
                [run[n].ravel() for n in sorted(run) if n.startswith(kind)]
            )
            for run in (here, there)
        )
        assert distance(ours, theirs) < 1e-5, kind


def distance(ours, theirs):
    difference = np.linalg.norm(np.asarray(ours, "float64") - theirs)
    return difference / np.linalg.norm(ours)
