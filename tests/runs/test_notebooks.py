"""The notebooks of examples/ run from top to bottom, on few images."""

import ast
import functools
import json
from pathlib import Path

import pytest

from kerassl import encoders
from tests.backends import more

EXAMPLES = Path(__file__).parents[2] / "examples"
FASHION = {"data": "fashion_mnist_small", "train_count": 200, "test_count": 30}
SMALL = {
    "train_on_your_folder": {"image_size": 16, "epochs": 1, "count": 60},
    "go_on_from_weights": {
        "weights": "encoder.keras",
        "epochs": 1,
        **FASHION,
    },
    "publish_and_use": {"source": "encoder.keras", **FASHION},
}


def cells(name):
    """Yields the code and the tags of each cell."""
    text = (EXAMPLES / f"{name}.ipynb").read_text("utf-8")
    for cell in json.loads(text)["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            yield "".join(cell["source"]), cell["metadata"].get("tags", ())


def test_all_are_run():
    assert {path.stem for path in EXAMPLES.glob("*.ipynb")} == set(SMALL)


@pytest.mark.parametrize(
    "name",
    [
        "train_on_your_folder",
        pytest.param("go_on_from_weights", marks=more("tests of its parts")),
        pytest.param("publish_and_use", marks=more("tests of its parts")),
    ],
)
def test_a_notebook_runs(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if name != "train_on_your_folder":
        encoders.build("resnet_nano", (28, 28, 1)).save("encoder.keras")
    variables, shown = {}, 0
    for number, (code, tags) in enumerate(cells(name)):
        *most, last = ast.parse(code).body
        run = functools.partial(compile, filename=f"{name}, cell {number}")
        exec(run(ast.Module(most, []), mode="exec"), variables)
        if isinstance(last, ast.Expr):
            value = eval(
                run(ast.Expression(last.value), mode="eval"), variables
            )
            if hasattr(value, "_repr_png_"):
                shown += value._repr_png_().startswith(b"\x89PNG")
        else:
            exec(run(ast.Module([last], []), mode="exec"), variables)
        if "parameters" in tags:
            assert set(SMALL[name]) <= set(variables)
            variables.update(SMALL[name])
    assert shown == sum("visualization" in code for code, _ in cells(name))
    printed = capsys.readouterr().out
    if name == "go_on_from_weights":
        assert "random weights" in printed and "the start" in printed
    else:  # It compares the features of an encoder that was written and read.
        assert float(printed.split()[-1]) < 1e-3
