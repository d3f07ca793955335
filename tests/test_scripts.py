"""Scripts whose output is committed: it is what they would write now."""

import importlib.util
import os
import signal
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
    # Each pixel at a border has fewer neighbors.
    neighbors = (6 * 3 + 2 * 2) ** 2
    assert found == pytest.approx(
        2 * (neighbors * 3 * 16 + 8 * 8 * 16 * 5), rel=0.02
    )


CHILD = """
import pathlib, signal, sys, time
def save(*_):
    time.sleep(1)
    pathlib.Path(sys.argv[1]).touch()
    sys.exit(3)
signal.signal(signal.SIGINT, save)
signal.signal(signal.SIGTERM, save)
print("ready", flush=True)
time.sleep(60)
"""
PARENT = """
import subprocess, sys
sys.path.insert(0, sys.argv[1])
import train_presets
start = subprocess.Popen
train_presets.subprocess.Popen = lambda command, env: start(
    [sys.executable, "-c", sys.argv[2], sys.argv[3]]
)
train_presets.kerassl()
"""


@once
@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_training_may_save_when_the_script_is_stopped(number, tmp_path):
    saved = tmp_path / "saved"
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT, SCRIPTS, CHILD, saved],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert process.stdout.readline() == "ready\n"
    # A terminal sends Ctrl-C to both, and `kill` its signal to one.
    send = os.killpg if number == signal.SIGINT else os.kill
    send(process.pid, number)
    assert process.wait(timeout=30) != 0
    assert saved.exists()
