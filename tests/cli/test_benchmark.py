import importlib
import json
import sys
from pathlib import Path

import keras
import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture
def benchmark(monkeypatch):
    """Returns a function that runs the script in this process."""
    monkeypatch.syspath_prepend(SCRIPTS)
    module = importlib.import_module("benchmark")

    def run(arguments):
        monkeypatch.setattr(sys, "argv", ["benchmark.py", *arguments.split()])
        return module.main()

    return run


def test_the_last_line_is_json(benchmark, capsys):
    code = benchmark(
        "simclr --encoder resnet_nano --batch-size 8 --image-size 16 "
        "--channels 1 --steps 2 --rounds 2"
    )
    assert code == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    for name in (
        "samples_per_second",
        "encoder_samples_per_second",
        "views_per_second",
        "peak_memory_mb",
        "step_ratio_raw",
    ):
        assert result[name] > 0, name
    assert result["step_ratio"] == max(1, result["step_ratio_raw"])
    assert result["backend"] == keras.config.backend()
    assert result["batch_size"] == 8


def test_unknown_methods_are_refused(benchmark, capsys):
    with pytest.raises(SystemExit) as error:
        benchmark("simclear")
    assert error.value.code == 2
    assert "simclr" in capsys.readouterr().err
