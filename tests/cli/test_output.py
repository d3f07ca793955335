"""Output that nobody reads to its end."""

import os
import signal
import subprocess
import sys
import types
from pathlib import Path

import pytest

from kerassl.cli import main as main_module
from kerassl.cli import signals
from kerassl.cli.errors import print_error, print_note, user_errors
from kerassl.cli.main import main
from kerassl.cli.progress import progress
from kerassl.cli.time_left import Lines

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def closed():
    """A pipe whose reader has ended."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        yield stream


@pytest.mark.parametrize("bar", [False, True])
def test_a_training_goes_on_without_its_progress(bar, closed, monkeypatch):
    run = types.SimpleNamespace(
        recipe=types.SimpleNamespace(batch_size=4, epochs=2),
        position=types.SimpleNamespace(epoch=0),
        steps_done=0,
        steps_per_epoch=1,
        total_steps=2,
        stopping=False,
    )
    if bar:
        monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(sys, "stdout", closed)
    with progress(run) as callback:
        assert hasattr(callback, "bar") == bar
        for epoch in range(2):
            callback.on_epoch_begin(epoch)
            callback.on_train_batch_end(0, {"loss": 1.0})
            callback.on_epoch_end(epoch, {"loss": 1.0})
    print("Finished.", flush=True)  # Nor does what follows fail.


def test_a_command_goes_on_without_its_notes(closed, monkeypatch):
    monkeypatch.setattr(sys, "stderr", closed)
    print_note("the learning rate is high")
    print_error("one protocol failed")
    lines = Lines()
    lines.last = float("-inf")
    lines.show("knn", 1, 2)


def test_ctrl_c_stops_the_run_if_it_also_ended_the_reader(monkeypatch):
    def closed(file, data):
        raise BrokenPipeError(32, "Broken pipe")

    stopped = []
    run = types.SimpleNamespace(stop=lambda: stopped.append(True))
    with signals.stop_on_signals(run) as received, monkeypatch.context() as now:
        now.setattr(os, "write", closed)
        signal.raise_signal(signal.SIGINT)
    assert stopped and received == [signal.SIGINT]


@pytest.mark.parametrize("kind", ["closed", "full"])
def test_output_that_cannot_be_printed_ends_a_command(
    kind, closed, monkeypatch, capsys
):
    if kind == "full" and not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")

    def run(arguments):
        with user_errors():
            print("the path of a preset")
        return 0

    monkeypatch.setattr(main_module, "_run", run)
    with open("/dev/full", "w") if kind == "full" else closed as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        code = main([])
        assert sys.stdout is stream
    told = capsys.readouterr().err
    if kind == "closed":
        assert (code, told) == (1, "")
    else:
        assert code == 2 and "No space left" in told and told.count("\n") == 1


def test_a_closed_pipe_is_no_mistake_of_the_user():
    with pytest.raises(BrokenPipeError), user_errors():
        raise BrokenPipeError(32, "Broken pipe")


def test_python_does_not_complain_at_exit(closed):
    done = subprocess.run(
        [sys.executable, "-m", "kerassl", "--version"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""},
        stdout=closed,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
