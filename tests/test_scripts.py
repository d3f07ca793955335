"""Generated pages are up to date; trainings end well; costs are counted."""

import copy
import importlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import keras
import pytest
from keras import layers

import kerassl
from tests.backends import once

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"


@pytest.fixture
def load(monkeypatch):
    """Returns a function that imports a script's module."""
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module


@once
def test_pages_are_up_to_date(load, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["write_pages.py", "--check"])
    assert load("write_pages").main() == 0, capsys.readouterr().out


@once
def test_a_stale_page_is_found_and_written(load, monkeypatch, capsys, tmp_path):
    script, methods = load("write_pages"), load("pages.methods")
    monkeypatch.setattr(script.benchmark, "draw", lambda: None)
    monkeypatch.setattr(script.benchmark, "pages", dict)
    monkeypatch.setattr(script.performance, "pages", dict)
    monkeypatch.setattr(script.results, "ROOT", tmp_path)
    monkeypatch.setattr(methods, "ROOT", tmp_path)
    docs = SCRIPTS.parent / "docs"
    shutil.copytree(docs / "methods", tmp_path / "docs" / "methods")
    page = tmp_path / "docs" / "methods.md"
    stale = "Before. <!-- results:all -->48.1%<!-- /results:all --> After."
    page.write_text(stale, encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["write_pages.py", "--check"])
    assert script.main() == 1
    assert "docs/methods.md is stale" in capsys.readouterr().out
    assert page.read_text(encoding="utf-8") == stale
    monkeypatch.setattr(sys, "argv", ["write_pages.py"])
    assert script.main() == 0
    text = page.read_text(encoding="utf-8")
    assert text.startswith("Before.") and text.endswith("After.")
    assert "| `simclr` | 32.1% |" in text


@once
def test_results_keep_the_hash_of_former_names(load):
    recipes = {
        name: kerassl.recipes.get(name).to_dict() for name in ("swav", "simclr")
    }
    old = copy.deepcopy(recipes["swav"])
    settings = old["method_args"]
    settings["prototypes"] = settings.pop("num_prototypes")
    hashes = load("results").recipe_hashes(recipes["swav"])
    assert len(hashes) == 2
    assert hashes == load("results").recipe_hashes(old)
    assert len(load("results").recipe_hashes(recipes["simclr"])) == 1


@once
def test_a_line_that_was_cut_off_is_skipped(load, tmp_path):
    results, path = load("results"), tmp_path / "lines.jsonl"
    results.append_line(path, {"a": 1})
    with path.open("a", encoding="utf-8") as file:
        file.write('{"a": ')
    results.append_line(path, {"a": 2})
    assert results.read_lines(path) == [{"a": 1}, {"a": 2}]


@once
@pytest.mark.parametrize(
    "arguments,message",
    [
        ("tune simclear", "Nearest: simclr"),
        ("tune simclr --change nothing=1", "nothing=1"),
        ("methods --methods simclear", "Nearest: simclr"),
        ("presets --only simclear", "Nearest: simclr"),
        ("presets --scale imagenet", "--imagenet PATH"),
    ],
)
def test_wrong_trainings_are_refused(
    load, arguments, message, monkeypatch, capsys
):
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments.split()])
    with pytest.raises(SystemExit, match="2"):
        load("train").main()
    assert message in capsys.readouterr().err


@pytest.mark.skipif(
    keras.config.backend() != "jax", reason="counted by XLA through JAX"
)
def test_operations_are_counted(load):
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
from trainings import presets
start = subprocess.Popen
presets.subprocess.Popen = lambda command, env: start(
    [sys.executable, "-c", sys.argv[2], sys.argv[3]]
)
presets.kerassl()
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
