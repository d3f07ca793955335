"""Three backends, one result: ready-made views and equal weights."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.contracts import parity_worker
from tests.contracts.methods import METHODS

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(
    keras.backend.backend() != "torch",
    reason="compared once, from PyTorch's run",
)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("backend", ["jax", "tensorflow"])
def test_losses_gradients_and_steps_agree(method, backend, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    weights = parity_worker.build(method).get_weights()
    source, target = tmp_path / "in.npz", tmp_path / "out.npz"
    np.savez(source, **{f"{i}": w for i, w in enumerate(weights)})
    subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.contracts.parity_worker",
            method,
            str(source),
            str(target),
        ],
        cwd=ROOT,
        env=os.environ | {"KERAS_BACKEND": backend},
        check=True,
    )
    here = parity_worker.run(method, weights)
    with np.load(target) as arrays:
        there = dict(arrays)
    assert set(there) == set(here)
    for name, ours in here.items():
        # A bias before a normalization has no gradient but rounding.
        if name.startswith("gradient") and np.linalg.norm(ours) > 1e-6:
            assert distance(ours, there[name]) < 1e-5, name
        if "_loss_" in name:
            assert distance(ours, there[name]) < 1e-5, name
    # After steps the model is compared as a whole: an offset that began at 0
    # is small, and one ReLU that rounding turned moves it by more than 1e-4.
    for kind in ("sgd_parameter", "sgd_state"):
        ours, theirs = (
            np.concatenate(
                [run[n].ravel() for n in sorted(run) if n.startswith(kind)]
            )
            for run in (here, there)
        )
        assert distance(ours, theirs) < 1e-4, kind


def distance(ours, theirs):
    difference = np.linalg.norm(np.asarray(ours, "float64") - theirs)
    return difference / np.linalg.norm(ours)
