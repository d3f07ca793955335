"""`kerassl data check` and `kerassl data stats`."""

import itertools
import json
import types

import numpy as np
import pytest
from PIL import Image

from kerassl.augmentation import simclr
from kerassl.cli.main import main
from kerassl.data.levels import decoder_for
from kerassl.data.load import find
from kerassl.runs import feeding
from tests.backends import once
from tests.data.made import bands, tiff


def save(path, size=(40, 20), mode="RGB", color=(10, 20, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).convert(mode).save(path)
    return path


@pytest.fixture
def photos(tmp_path):
    for i in range(4):
        save(tmp_path / "a" / f"{i}.png")
    save(tmp_path / "b" / "0.jpg", (64, 80), "CMYK")
    (tmp_path / "b" / "notes.docx").write_text("no image")
    return tmp_path


def test_check_counts(photos, capsys):
    assert main(["data", "check", f"folder:{photos}"]) == 0
    told = capsys.readouterr().out
    for words in (
        "5 images",
        "1 .docx",
        "a (4), b (1)",
        "PNG (4), JPEG (1)",
        "RGB (4), CMYK (1)",
        "0-31 (4), 64-127 (1)",
        "40x20 (4), 64x80 (1)",
        "CMYK colors",
        "images a second",
    ):
        assert words in told


def test_check_names_what_cannot_be_read(photos, capsys):
    good = (photos / "b" / "0.jpg").read_bytes()
    (photos / "b" / "1.jpg").write_bytes(good[: len(good) // 2])
    (photos / "b" / "2.jpg").write_text("no image")
    assert main(["data", "check", str(photos)]) == 1
    told = capsys.readouterr().out
    assert "can't be read: 2" in told and "b (3)" in told
    assert "1.jpg: " in told
    assert "2.jpg: UnidentifiedImageError" in told
    # Evenly spaced: the first, the third and the fifth.
    assert main(["data", "check", str(photos), "--json", "--limit", "3"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["images"], found["read"]) == (7, 3)
    assert found["classes"] == {"a": 4, "b": 3}


@once
def test_check_says_how_many_cores_feed_a_step(tmp_path, capsys, monkeypatch):
    for i in range(32):
        save(tmp_path / f"{i:02}.png", (40, 36))
    words = ["data", "check", str(tmp_path), "--for", "simclr"]
    words += ["--image-size", "32"]
    clock = types.SimpleNamespace(
        perf_counter=iter([10.0, 12.0]).__next__,
        thread_time=itertools.count(0, 0.25).__next__,
    )
    with monkeypatch.context() as patch:
        patch.setattr(feeding, "time", clock)
        assert main([*words, "--json"]) == 0
    fed = json.loads(capsys.readouterr().out)["feeding"]
    assert (fed["method"], fed["recipe"]) == ("simclr", "cpu")
    # Batches of 32, in 2 seconds, whose images take a quarter of one each.
    speed = (feeding._STEPS - 1 - feeding._FIRST) * 32 / 2
    assert (fed["images_per_second"], fed["seconds"]) == (speed, 0.25)
    assert fed["cores"] == speed / 4
    (tmp_path / "00.png").unlink()
    assert main(words) == 2
    told = capsys.readouterr()
    assert "A batch of 32 images is needed" in told.err
    assert "31 images" in told.out and "PNG (31)" in told.out
    np.save(tmp_path / "x.npy", np.zeros((40, 8, 8, 3), "uint8"))
    assert main(["data", "check", f"{tmp_path}/x.npy", "--for", "mae"]) == 2
    assert "need no decoding" in capsys.readouterr().err


@once
def test_check_for_a_method_that_needs_labels(tmp_path, capsys):
    for i in range(32):
        save(tmp_path / "ab"[i % 2] / f"{i:02}.png")
    words = ["data", "check", "--for", "supcon", "--image-size", "16"]
    assert main([*words, str(tmp_path)]) == 0
    assert "supcon, recipe cpu: its steps take" in capsys.readouterr().out


@once
def test_check_for_a_method_of_many_channels(tmp_path, capsys):
    for i, x in enumerate(bands(32, size=16)):
        tiff(tmp_path / f"{i:02}.tif", x)
    words = ["data", "check", str(tmp_path), "--for", "simclr"]
    assert main([*words, "--image-size", "16"]) == 0
    assert "its steps take" in capsys.readouterr().out


@pytest.mark.parametrize(
    ["options", "words"],
    [
        (["--for", "simcl"], "Nearest: simclr"),
        (["--for", "simclr", "--recipe", "imagnet"], "Nearest: imagenet"),
        (["--for", "auto", "--recipe", "cpu"], "--recipe is for --for METHOD"),
        (["--recipe", "cpu"], "--recipe is for --for METHOD"),
    ],
)
def test_mistakes_are_found_before_photos_are_decoded(
    photos, monkeypatch, capsys, options, words
):
    monkeypatch.setattr("kerassl.data.inspection.inspect", pytest.fail)
    assert main(["data", "check", str(photos), *options]) == 2
    assert words in capsys.readouterr().err


def test_check_for_auto_repeats_its_options(photos, capsys):
    words = ["data", "check", str(photos), "--for", "auto"]
    words += ["--image-size=16", "--range=0,255", "--data-dir", "my sets"]
    assert main(words) == 0
    (line,) = (
        line
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("so ")
    )
    for option in ("--image-size 16", "--range=0,255", "--data-dir 'my sets'"):
        assert option in line


def test_a_folder_that_ends_as_a_file_does(photos, capsys):
    folder = photos.rename(photos.parent / "photos.csv")
    assert main(["data", "check", f"folder:{folder}"]) == 0
    assert "5 images" in capsys.readouterr().out


@once
def test_the_cost_of_images_that_are_not_photos(tmp_path, monkeypatch):
    for i, x in enumerate(bands(4)):
        tiff(tmp_path / f"{i}.tif", x)
    found, *_ = find(str(tmp_path), image_size=16)
    with pytest.raises(ValueError, match="None of 4 images can be read"):
        feeding._cost(found, None)  # Not as RGB.
    found.decoder = decoder_for(found, None, (0, 10_000))
    for plan in (None, simclr(16).crop_plan):
        assert feeding._cost(found, plan) > 0
    # The first time doesn't count: what decodes is imported then.
    times = iter([0, 9, 9, 10, 10, 11, 11, 12, 12, 15])
    clock = types.SimpleNamespace(thread_time=times.__next__)
    monkeypatch.setattr(feeding, "time", clock)
    assert feeding._cost(found, None) == 1.5


def test_check_of_arrays(tmp_path, capsys):
    path = tmp_path / "x.npz"
    np.savez(path, images=np.zeros((5, 8, 9, 1), "uint8"), labels=[0] * 5)
    assert main(["data", "check", str(path)]) == 0
    told = capsys.readouterr().out
    assert "9x8 (5)" in told and "array of uint8" in told
    assert "second" not in told


@pytest.mark.parametrize(
    ["values", "words"],
    [
        (np.linspace(0, 1, 6), "looks scaled to [0, 1]"),
        (np.full(6, np.nan), "NaN"),
        (np.arange(6), "int64 pixels, whose range isn't known"),
    ],
)
def test_check_of_arrays_that_load_refuses(tmp_path, capsys, values, words):
    path = str(tmp_path / "x.npz")
    np.savez(path, images=np.tile(values[:, None, None, None], (1, 8, 8, 1)))
    assert main(["data", "check", path]) == 1
    told = capsys.readouterr().out
    assert "6 images" in told and "can't be read: 1" in told and words in told


def test_check_of_some_of_an_array(tmp_path, capsys):
    path = str(tmp_path / "x.npz")
    # Of the first and the fourth, one can't be used.
    pixels = np.zeros((6, 8, 8, 1), "float32")
    pixels[3] = np.nan
    labels = [20231105, -1, 7, -1, 7, 7]
    np.savez(path, images=pixels, labels=labels)
    assert main(["data", "check", path, "--limit=2", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["images"], found["read"]) == (6, 2)
    assert found["classes"] == {"no label": 2, "7": 3, "20231105": 1}
    assert "NaN" in found["unreadable"][path]


def test_errors_are_one_line(tmp_path, capsys):
    assert main(["data", "check", "folder:/nowhere"]) == 2
    assert main(["data", "stats", f"{tmp_path}/x.csv"]) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2 and "no folder" in told[0] and "no file" in told[1]


def test_stats(tmp_path, capsys):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (70, 16, 16, 3)).astype("uint8")
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"{i:02}.png")
    assert main(["data", "stats", str(tmp_path), "--image-size", "16"]) == 0
    told = capsys.readouterr().out
    mean = ", ".join(f"{v:.2f}" for v in pixels.mean(axis=(0, 1, 2)))
    std = ", ".join(f"{v:.2f}" for v in pixels.std(axis=(0, 1, 2)))
    assert f"mean: {mean}" in told and f"std: {std}" in told
    words = ["data", "stats", str(tmp_path), "--image-size", "16", "--json"]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["images"] == 70
    (tmp_path / "70.png").write_bytes(b"no image")
    assert main(words) == 2
    assert "(--max-unreadable)" in capsys.readouterr().err
    assert main([*words, "--max-unreadable=0.1"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 70
    np.testing.assert_allclose(found["mean"], pixels.mean(axis=(0, 1, 2)))
