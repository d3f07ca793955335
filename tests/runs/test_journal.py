"""An interrupted evaluation goes on after what it has measured."""

import json
import logging

import keras
import numpy as np
import pytest

from kerassl import evaluation, runs
from kerassl.cli.main import main
from kerassl.cli.time_left import Lines, time_left
from kerassl.runs.journal import Journal, journal_path


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The file of an encoder, and how to evaluate it."""
    path = tmp_path_factory.mktemp("encoder") / "e.keras"
    inputs = keras.Input((28, 28, 1))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))
    keras.Model(inputs, keras.layers.Dense(8)(x)).save(path)
    return path


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "kerassl"


@pytest.fixture
def tuned(monkeypatch):
    """Fine-tuning that takes no time; its calls, and when to interrupt it."""

    class Tuned(list):
        interrupt_at = None

        def __call__(self, encoder, train, test, *, seed, **settings):
            if len(self) == self.interrupt_at:
                raise KeyboardInterrupt
            weights = sum(float(np.sum(w)) for w in encoder.get_weights())
            self.append((seed, settings["learning_rate"]))
            accuracy = (weights + seed + float(train.images.mean())) % 1
            return {"accuracy": accuracy, "learning_rate": 0.1 + seed}

    tuned = Tuned()
    monkeypatch.setattr(evaluation, "fine_tune", tuned)
    return tuned


ARGUMENTS = (
    "--data fashion_mnist_small --train-limit 60 --test-limit 20 --k 3 "
    "--protocol knn,finetune --per-class 2 --seeds 2 --json"
).split()


def result(capsys):
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_the_same_command_goes_on(source, cache, tuned, capsys, monkeypatch):
    arguments = ["evaluate", str(source), *ARGUMENTS]
    assert main(arguments) == 0
    expected, calls = result(capsys), list(tuned)
    assert calls == [(0, None), (1, 0.1)] * 2
    assert not list(cache.iterdir())
    # Killed within each measurement in turn; knn is measured only once.
    tuned.clear()
    for tuned.interrupt_at in range(4):
        assert main(arguments) == 130
        told = capsys.readouterr().err
        assert f"continues after {2 + tuned.interrupt_at} of 6" in told
        assert len(list(cache.glob(".evaluation-*.json"))) == 1
        monkeypatch.setattr(runs.protocols.KNNProtocol, "_score", None)
    # Other settings are measured anew: here they would need knn.
    with pytest.raises(TypeError):
        main([*arguments, "--k", "4"])
    capsys.readouterr()
    tuned.interrupt_at = None
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert "5 of 6 measurements are done" in captured.err
    assert json.loads(captured.out.splitlines()[-1]) == expected
    assert tuned == calls
    assert not list(cache.iterdir())


@pytest.mark.parametrize(
    "arguments,message",
    [
        ("--labels 0.00001", "less than one image. Give at least 0.001"),
        ("--labels 0.99999", "that is all 10,000"),
        ("--labels 0", "`labels` must be in"),
        ("--per-class 1001", "class 0 has 1000 images"),
    ],
)
def test_labels_that_cannot_be_are_refused(source, capsys, arguments, message):
    command = f"evaluate {source} --data fashion_mnist_small --protocol linear"
    assert main([*command.split(), *arguments.split()]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_images_are_needed(source, capsys):
    for one in ([], ["--train", "cifar10"], ["--test", "cifar10"]):
        assert main(["evaluate", str(source), *one]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "Give --data, or both --train and --test." in line


def test_what_is_broken_or_of_another_encoder_is_measured(tmp_path):
    path = tmp_path / "journal.json"
    plan, shown = {"a": 2.0, "b": 3.0}, []

    def measure(name, value):
        return journal.measure(
            name, lambda seen: seen(1) or {"accuracy": value}
        )

    journal = Journal(path, plan, lambda *what: shown.append(what))
    assert measure("a", 0.5) == {"accuracy": 0.5}
    assert shown == [("a", 0.0, 5.0), ("a", 1.0, 5.0), ("a", 2.0, 5.0)]
    kept = path.read_text()
    journal = Journal(path, plan, lambda *what: shown.append(what))
    assert journal.known == 1
    assert measure("a", 0.9) == {"accuracy": 0.5}
    measure("b", 0.25)
    assert shown[3:] == [("b", 0.0, 3.0), ("b", 1.0, 3.0), ("b", 3.0, 3.0)]
    for text in ("", kept[:-5], "[]", '{"a": 1}', '{"a": {"accuracy": "x"}}'):
        path.write_text(text)
        journal = Journal(path, plan, lambda *what: None)
        assert journal.known == 0 and measure("a", 0.75)["accuracy"] == 0.75
    journal.remove()
    assert not list(tmp_path.iterdir())


def test_a_full_disk_ends_no_evaluation(tmp_path, caplog):
    (tmp_path / "file").touch()
    journal = Journal(tmp_path / "file" / "x", {"a": 1.0}, lambda *what: None)
    with caplog.at_level(logging.WARNING, "kerassl"):
        found = journal.measure("a", lambda seen: {"accuracy": 1.0})
    assert found == {"accuracy": 1.0}
    assert "can't be resumed" in caplog.text


def test_what_a_journal_is_of(source, cache):
    def path(**options):
        options = {"data": "fashion_mnist_small", "train_limit": 40} | options
        subject = runs.Evaluation(source, test_limit=20, **options)
        return journal_path(source, subject.digest()), subject

    first, subject = path()
    assert first == path()[0] and first.parent == cache
    assert first != path(train_limit=41)[0]
    part = subject.splits["test"]
    part.images[0, 0, 0] ^= 1
    assert first != journal_path(source, subject.digest())
    part.images[0, 0, 0] ^= 1
    assert first == journal_path(source, subject.digest())
    part.labels[0] += 1
    assert first != journal_path(source, subject.digest())
    part.labels[0] -= 1
    weights = subject.encoder.get_weights()
    weights[0].flat[0] += 1e-3
    subject.encoder.set_weights(weights)
    assert first != journal_path(source, subject.digest())


def test_the_time_left(capsys, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    lines = Lines()
    for second in range(0, 101, 5):
        clock[0] = float(second)
        lines.show("knn, encoder", second * 2.0, 400.0)
    told = capsys.readouterr().err.splitlines()
    assert told == [
        "knn, encoder: 5% of all, about 0:03:10 left",
        "knn, encoder: 20% of all, about 0:02:40 left",
        "knn, encoder: 35% of all, about 0:02:10 left",
        "knn, encoder: 50% of all, about 0:01:40 left",
    ]


def test_a_bar_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with time_left() as show:
        show("knn [draw 1]", 30.0, 60.0)
        print("a row of the table")
    captured = capsys.readouterr()
    assert captured.out == "a row of the table\n"
    assert "knn [draw 1]" in captured.err and "50%" in captured.err
