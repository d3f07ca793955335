"""Scripts whose output is committed: it is what they would write now."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import keras
import pytest
from keras import layers

from tests.backends import once

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"


def load(name):
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@once
@pytest.mark.parametrize("page", ["benchmark", "performance"])
def test_pages_are_up_to_date(page):
    checked = subprocess.run(
        [sys.executable, SCRIPTS / f"{page}_page.py", "--check"],
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.skipif(
    keras.config.backend() != "jax", reason="counted by XLA through JAX"
)
def test_operations_are_counted():
    script = load("cost_model")
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(16, 3, padding="same", use_bias=False)(inputs)
    x = layers.Dense(5, use_bias=False)(layers.Flatten()(x))
    found = script.encoder_flops(keras.Model(inputs, x), 8) / script.BATCH
    # Each pixel at a border has fewer neighbours.
    neighbours = (6 * 3 + 2 * 2) ** 2
    assert found == pytest.approx(
        2 * (neighbours * 3 * 16 + 8 * 8 * 16 * 5), rel=0.02
    )
