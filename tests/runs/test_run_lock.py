"""One process at a time writes into a run's folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kerassl import run_lock
from kerassl.run_lock import LOCK, InUseError, check_free, locked
from kerassl.runs.files import encoder_mark, write_scores

ROOT = Path(__file__).resolve().parents[2]
# The file alone: a process that imports Keras takes seconds.
HOLD = """
import importlib.util, pathlib, sys
spec = importlib.util.spec_from_file_location("lock", sys.argv[1])
lock = importlib.util.module_from_spec(spec)
spec.loader.exec_module(lock)
with lock.locked(pathlib.Path(sys.argv[2])):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of `tmp_path`."""
    module = ROOT / "kerassl" / "run_lock.py"
    running = subprocess.Popen(
        [sys.executable, "-c", HOLD, module, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert running.stdout.readline() == "held\n"
    yield running
    running.kill()
    running.communicate()


def test_another_process_is_refused_and_told_who_it_is(holder, tmp_path):
    words = f"in use by process {holder.pid} on .*, since 20"
    with pytest.raises(InUseError, match=words), locked(tmp_path, wait=0):
        pass
    with pytest.raises(InUseError, match=words):
        check_free(tmp_path)
    holder.communicate("\n")
    with locked(tmp_path, wait=0):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    assert not list(tmp_path.iterdir())


def test_a_crash_leaves_no_stale_lock(holder, tmp_path):
    holder.kill()
    holder.wait()
    assert (tmp_path / LOCK).exists()
    check_free(tmp_path)
    with locked(tmp_path, wait=0):
        pass
    assert not list(tmp_path.iterdir())


def test_a_process_refuses_itself_too(tmp_path):
    with locked(tmp_path):
        with pytest.raises(InUseError, match=f"process {os.getpid()} "):
            with locked(tmp_path, wait=0):
                pass
        with pytest.raises(InUseError):
            check_free(tmp_path)
    check_free(tmp_path)
    check_free(tmp_path / "nothing")


def test_the_lock_of_a_removed_file_is_none(tmp_path, monkeypatch):
    """Two would hold one: that of the removed file, and that of the new."""
    lock_file = run_lock._try_lock

    def remove_then_lock(file, path):
        path.unlink()  # As the last holder does, after `file` was opened.
        return lock_file(file, path)

    with monkeypatch.context() as patch:
        patch.setattr(run_lock, "_try_lock", remove_then_lock)
        with pytest.raises(InUseError), locked(tmp_path, wait=0):
            pass
    with locked(tmp_path, wait=0):
        pass


def test_scores_are_kept_if_they_are_of_this_encoder(tmp_path):
    (tmp_path / "encoder.keras").write_text("one")
    mark = encoder_mark(tmp_path)
    write_scores(tmp_path, {"knn": {"accuracy": 0.5}}, mark)
    write_scores(tmp_path, {"linear": {"accuracy": 0.6}}, mark)
    kept = json.loads((tmp_path / "scores.json").read_text())
    assert kept == {"knn": {"accuracy": 0.5}, "linear": {"accuracy": 0.6}}
    (tmp_path / "encoder.keras").write_text("other")
    with pytest.raises(ValueError, match="was replaced"):
        write_scores(tmp_path, {"knn": {"accuracy": 0.9}}, mark)
    assert json.loads((tmp_path / "scores.json").read_text()) == kept


@pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="needs O_NOFOLLOW")
@pytest.mark.parametrize("name", ["file", "missing"])
def test_the_target_of_a_link_is_left_alone(name, tmp_path):
    (tmp_path / "file").write_text("mine")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / LOCK).symlink_to(tmp_path / name)
    with pytest.raises(OSError, match="is a link"), locked(folder):
        pass
    with pytest.raises(OSError, match="is a link"):
        check_free(folder)
    assert (tmp_path / "file").read_text() == "mine"
    assert sorted(os.listdir(tmp_path)) == ["file", "run"]
