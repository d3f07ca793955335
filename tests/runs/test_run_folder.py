"""A run's files, read from outside."""

import pytest

from kerassl import runs


@pytest.mark.parametrize("text", ["", "epoch,loss\n"])
def test_a_run_may_have_no_finished_epoch(text, tmp_path):
    (tmp_path / "history.csv").write_text(text)
    assert runs.read_history(tmp_path) == []


@pytest.mark.parametrize(
    "text, message",
    [
        ("epoch,loss\n1,high\n", "high"),
        ("step,loss\n1,2\n", "epoch"),
        ("epoch,loss\n1\n", ""),
        ("epoch,loss\n1,2,3\n", ""),
        ("epoch,seconds\n1,-2\n", "seconds is -2"),
    ],
)
def test_broken_histories_are_refused(text, message, tmp_path):
    (tmp_path / "history.csv").write_text(text)
    with pytest.raises(ValueError, match=f"history.csv is broken.*{message}"):
        runs.read_history(tmp_path)


def test_a_missing_history_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.history.csv"):
        runs.read_history(tmp_path / "nowhere")
