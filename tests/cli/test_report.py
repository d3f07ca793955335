"""`kerassl report`: one page about a run, with everything in it."""

import html.parser
import json
import shutil
import sys

import keras
import numpy as np
import pytest
from PIL import Image

from kerassl import recipes
from kerassl.cli.main import main
from kerassl.environment import environment
from kerassl.report import html as report_html
from kerassl.report import sections
from kerassl.report.page import Report
from kerassl.runs.checkpoint import Position, save_checkpoint
from tests.contracts.methods import METHODS, tiny_encoder

NAME = "<b>&\"'$title"
VOID = {"meta", "img", "br"}

pictures_have_tests = pytest.mark.skipif(
    keras.config.backend() != "torch",
    reason="The pictures of models have tests of their own on each backend",
)


class Page(html.parser.HTMLParser):
    """Reads a page, and fails where tags don't match."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.words = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def run(tmp_path_factory, images):
    """The folder of a run on images with a wild name and no test split.

    Its model is a tiny one, and untrained: a page says what it finds.
    """
    folder = tmp_path_factory.mktemp("report")
    data = folder / f"{NAME}.npz"
    np.savez(data, x_train=images, y_train=np.arange(64) % 3)
    folder = folder / "run"
    folder.mkdir()
    recipe = recipes.get("mae").replace(epochs=1, batch_size=32)
    settings = {
        "recipe": recipe.to_dict(),
        "recipe_hash": recipe.hash,
        "data": str(data),
        "limit": 64,
        "data_dir": None,
        **environment(),
    }
    (folder / "recipe.json").write_text(json.dumps(settings))
    (folder / "history.csv").write_text(
        "epoch,loss,relative_error,seconds,images_per_second\n"
        "1,1.5,0.9,61.0,1.0\n"
    )
    model = METHODS["mae"](tiny_encoder())
    model.compile("sgd")
    save_checkpoint(folder / "checkpoint.keras", model, Position(epoch=1))
    model.encoder.save(folder / "encoder.keras")
    return folder


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch):
    """Pictures of few images and few pixels: drawing is what takes time."""
    monkeypatch.setattr(report_html, "DPI", 30)
    for name, value in dict(QUERIES=2, NEIGHBORS=2, ROWS=1).items():
        monkeypatch.setattr(sections, name, value)


def reported(capsys, *arguments):
    assert main(["report", *map(str, arguments)]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    path = line.removeprefix("Wrote ")
    with open(path, encoding="utf-8") as file:
        text = file.read()
    return path, text, Page(text)


def refused(capsys, *arguments):
    """Returns the one line that tells an error."""
    assert main(["report", *map(str, arguments)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pictures_have_tests
def test_the_page_has_all_in_it(run, capsys):
    path, text, page = reported(capsys, run, "--images", 8)
    assert path == str(run / "report.html")
    assert not list(run.glob(".partial*"))
    assert len(text) < 3e6

    # What the reader sees is the name; nothing of it is HTML.
    assert page.text.startswith(f"mae on {run.parent / NAME}.npz")
    assert not page.all("b") and not page.all("script")
    # No network: all pictures are data.
    pictures = page.all("img")
    assert all(x["src"].startswith("data:image/") for x in pictures)
    assert "http://" not in text and "https://" not in text
    assert "url(" not in text and not page.all("link")
    assert [x["alt"] for x in pictures] == [
        "loss",
        "relative_error",
        "Neighbors",
        "Map of the features",
        "Attention maps",
        "Views",
        "Pretext task",
    ]
    settings = json.loads((run / "recipe.json").read_text())
    for part in (
        settings["recipe_hash"],
        f"keras {keras.__version__}",
        "1 of 1, in batches of 32",
        "1 min 1 s",
        "Not evaluated yet, run: kerassl evaluate",
        # Every fifth of 40 is a query.
        "Map 8 images",
        "32 training images",
        "All are training images:",
        "has no images for split='test'",
    ):
        assert part in page.text, part
    # For phones, and for the dark.
    viewport = {x.get("name"): x.get("content") for x in page.all("meta")}
    assert "width=device-width" in viewport["viewport"]
    assert "prefers-color-scheme: dark" in text and "max-width: 100%" in text


def test_scores_warnings_and_what_was_removed(run, capsys, tmp_path):
    for name in ("recipe.json", "encoder.keras"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    settings = json.loads((run / "recipe.json").read_text())
    settings["recipe"]["epochs"] = 5
    (tmp_path / "recipe.json").write_text(json.dumps(settings))
    (tmp_path / "history.csv").write_text("epoch,loss\n")
    scores = {
        "knn": {
            "accuracy": 0.25,
            "untrained_accuracy": 0.5,
            "settings": {"k": 20, "layer": None},
            "accuracy_std": 0.123456,
            "stages": {"stage1": 0.75},
            "untrained_stages": {"stage1": 0.5},
            "best_stage": "stage1",
        },
        "<i>probe": {"accuracy": 0.625},
    }
    (tmp_path / "scores.json").write_text(json.dumps(scores))
    output = tmp_path / "page.html"
    arguments = "--data fashion_mnist_small --images 3 --output".split()
    path, _, page = reported(capsys, tmp_path, *arguments, output)
    assert path == str(output)
    for part in (
        "The recipe in the folder was changed",
        "The run isn't finished: 0 of 5 epochs",
        "isn't above that of the same encoder with random weights, 50.0%",
        "knn accuracy std 0.1235, k 20 25.0% 50.0%",
        "knn, stage1 best stage 75.0% 50.0%",
        "<i>probe 62.5% –",
        "No epoch is finished yet",
        "resume with kerassl pretrain --resume --output",
        "12 training images",
        "A map needs at least 4",
        "need checkpoint.keras, which was deleted",
    ):
        assert part in page.text, part
    assert "Not evaluated yet" not in page.text


@pictures_have_tests
def test_barlow_twins_have_their_matrix(run):
    subject = Report(run, "fashion_mnist_small", images=8).run
    subject.model = METHODS["barlow_twins"](tiny_encoder())
    page = Page("\n".join(sections.of_model(subject)))
    assert [x["alt"] for x in page.all("img")] == [
        "Views",
        "Cross-correlation matrix",
    ]
    assert "correlate by about 0.35" in page.text


def test_mistakes_are_told_in_one_line(run, capsys, tmp_path, monkeypatch):
    assert "holds no run" in refused(capsys, tmp_path)
    assert "no images called" in refused(capsys, run, "--data", "fashion_mnst")
    assert "takes images of 1 channels" in refused(
        capsys, run, "--data", photos(tmp_path)
    )
    assert "no folder" in refused(
        capsys, run, "--output", tmp_path / "nowhere" / "page.html"
    )
    assert "is a folder" in refused(capsys, run, "--output", tmp_path)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    line = refused(capsys, run)
    assert 'pip install "kerassl[viz]"' in line


def photos(folder):
    path = folder / "photos.npy"
    np.save(path, np.zeros((8, 28, 28, 3), "uint8"))
    return path


def test_all_classes_of_a_folder_are_shown(run, tmp_path):
    """Its images come class by class."""
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for i in range(100):
            path = tmp_path / split / str(i % 10) / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (28, 28, 1), "uint8")
            Image.fromarray(np.tile(pixels, 3)).save(path)
    colors = shutil.copytree(run, tmp_path.with_name("colors"))
    (colors / "checkpoint.keras").unlink()
    tiny_encoder((28, 28, 3)).save(colors / "encoder.keras")
    subject = Report(colors, f"folder:{tmp_path}", images=10).run
    assert sorted(set(subject.bank.labels)) == list(range(10))
    assert list(subject.queries.labels) == list(range(10))
    assert list(subject.spread(4)) == [0, 2, 5, 7]


def test_duration():
    duration = report_html.duration
    times = [duration(t) for t in (0.4, 59.6, 61, 3600, 7500)]
    assert times == ["0 s", "1 min 0 s", "1 min 1 s", "1 h 0 min", "2 h 5 min"]
