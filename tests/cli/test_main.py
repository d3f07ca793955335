"""What the command says without Keras, which takes seconds to load."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import kerassl
from kerassl import encoders, names, recipes
from tests.backends import once

ROOT = Path(__file__).resolve().parents[2]
MODULE = ["-m", "kerassl"]
PARTS = sorted(path.parent.name for path in ROOT.glob("kerassl/*/__init__.py"))
# The command loads what it needs, in any order; the package in its own.
EACH_FIRST = """
import importlib, sys
sys.argv[0] = "kerassl"
for part in {parts}:
    for name in [name for name in sys.modules if name.startswith("kerassl")]:
        del sys.modules[name]
    importlib.import_module("kerassl." + part)
"""
# A command that loads Keras, and then something to compute.
COMPUTE = """
import sys
sys.argv[0] = "/bin/kerassl"
from kerassl.cli.main import main
main(["presets", "list"])
import tensorflow
tensorflow.zeros(())
"""
# What the installed script does.
SCRIPT = [
    "-c",
    "import sys; sys.argv[0] = '/bin/kerassl'; "
    "from kerassl.cli.main import main; sys.exit(main())",
]


def answer(words, start=MODULE):
    """Returns the exit code, what is printed, and the modules loaded."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *start, *words.split()],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    lines = done.stderr.splitlines()
    imported = [line for line in lines if line.startswith("import time:")]
    told = [line for line in lines if line not in imported]
    modules = {line.rpartition("|")[2].strip() for line in imported}
    return done.returncode, done.stdout + "\n".join(told), modules


def on(backend, *words):
    """Returns the exit code and what is told about it."""
    environment = {**os.environ, "KERAS_BACKEND": backend}
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
    done = subprocess.run(
        [sys.executable, *words],
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stderr


@once
def test_tensorflow_says_nothing_about_the_machine():
    pytest.importorskip("tensorflow")
    assert on("tensorflow", "-c", COMPUTE) == (0, "")


@once
@pytest.mark.parametrize("words", ["list", "path a"])
def test_a_missing_backend_is_told_in_one_line(words):
    code, told = on("mine", *MODULE, "presets", *words.split())
    assert code == 2 and told.count("\n") == 1
    assert "Keras can't be loaded with mine" in told


@once
@pytest.mark.parametrize(
    "words, code, told",
    [
        ("--help", 0, "pretrain"),
        ("--version", 0, f"kerassl {kerassl.__version__}"),
        ("pretrain --help", 0, "--monitor"),
        ("pretrain --help", 0, "untrained, such as resnet_nano"),
        ("evaluate --help", 0, "--protocol"),
        ("report --help", 0, "--beside"),
        ("nearest --help", 0, ".parquet"),
        ("pretend", 2, "pretrain"),
        ("pretrain SimCLR --data cifar10", 2, "Nearest: simclr,"),
        ("pretrain simclr --recipe cifer --data cifar10", 2, "cifar"),
        ("pretrain simclr --encoder resnet_nan --data x", 2, "resnet_nano"),
        ("pretrain simclr --data folder:nowhere", 2, "no folder nowhere"),
        ("pretrain simclr --data folder:~no_one/x", 2, "no folder ~no_one/x"),
        ("pretrain simclr --data nowhere.npz", 2, "no file nowhere.npz"),
        (
            "pretrain simclr --data cifar10 --seed -1",
            2,
            "'-1' is not an integer",
        ),
        ("pretrain simclr --data x --monitor k-NN", 2, "Nearest: knn"),
        ("pretrain --resume --output nowhere", 2, "holds no run"),
        ("evaluate nowhere --data cifar10 --protocol kn", 2, "knn"),
        ("embed a fashion_mnist_small --output a.csv", 2, ".npz, .npy or"),
        ("embed a folder:nowhere --output a.npz", 2, "no folder nowhere"),
        ("embed a cifar10 --output README.md/a.npy --limit 0", 2, "'0' is not"),
        ("report nowhere", 2, "holds no run"),
        (
            "embed a b --output a.npz --max-unreadable nan",
            2,
            "'nan' is not a number from 0 to 1",
        ),
        (
            f"pretrain simclr --data x --seed {2**32}",
            2,
            "is not an integer in [0, 2**32)",
        ),
        ("nearest a cifar10 README.md --output a.xyz", 2, ".png, .pdf or"),
    ],
)
def test_help_and_mistakes_need_no_keras(words, code, told):
    got, text, modules = answer(words)
    assert got == code, text
    assert told in text
    assert "argparse" in modules
    assert not {"keras", "numpy", "tensorflow", "torch", "jax"} & modules


@once
def test_the_installed_script_is_as_quick():
    code, text, modules = answer("--version", SCRIPT)
    assert (code, text) == (0, f"kerassl {kerassl.__version__}\n")
    assert "keras" not in modules


@once
def test_each_part_can_be_loaded_first():
    done = subprocess.run(
        [sys.executable, "-c", EACH_FIRST.format(parts=PARTS)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert len(PARTS) > 14 and done.returncode == 0, done.stderr


@once
def test_the_names_that_are_checked_are_the_real_ones():
    assert names.METHODS == tuple(recipes.methods())
    assert names.ENCODERS == tuple(encoders.names())
