"""`kerassl nearest`, and the features of patches."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from kerassl import data, encoders, runs
from kerassl.cli.main import main
from tests.data.made import bands, tiff


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Eight plain colors in two classes, and an encoder that sees colors."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(8):
        path = folder / "ab"[number // 4] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (12, 12), (32 * number, 255 - 32 * number, 9)).save(
            path
        )
    path = folder.with_suffix(".keras")
    encoders.build("resnet_nano", (16, 16, 3)).save(path)
    return folder, path


def test_nearest_images(photos, tmp_path, capsys):
    folder, source = photos
    query = folder / "a" / "1.png"
    other = tmp_path / "other.png"
    Image.new("RGB", (20, 30), (32 * 6, 255 - 32 * 6, 9)).save(other)
    words = ["nearest", str(source), f"folder:{folder}"]
    words += [str(query), str(other), "--k", "2"]
    picture = tmp_path / "new" / "near.png"
    assert main([*words, "--output", str(picture)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(query) and lines[3] == str(other)
    # The image itself isn't found, and an equal one is.
    assert all(str(query) not in line for line in lines[1:3])
    assert lines[4].split() == ["1.000", str(folder / "b" / "6.png"), "b"]
    assert Image.open(picture).size[0] > 100
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    # By hand.
    images = data.load(f"folder:{folder}", image_size=16).images[:]
    features = encoders.embed(runs.Search(source, str(folder)).encoder, images)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    near = features @ features[1]
    near[1] = -1
    rows = found[str(query)]
    assert [row["index"] for row in rows] == np.argsort(-near)[:2].tolist()
    np.testing.assert_allclose(
        [row["similarity"] for row in rows], np.sort(near)[:-3:-1], atol=1e-5
    )


@pytest.mark.skipif(sys.platform != "linux", reason="names of any bytes")
def test_names_are_printed_safely(photos, tmp_path, capfdbinary):
    folder = tmp_path / "photos"
    names = [b"a", b"b\x1b]0;title\x07\nkerassl: all is well", b"caf\xe9"]
    for name in names:
        path = Path(os.fsdecode(os.path.join(bytes(folder), name, name)))
        path.parent.mkdir(parents=True)
        Image.new("RGB", (16, 16)).save(path, "png")
        path.rename(f"{path}.png")
    query = f"{path}.png"
    words = ["nearest", str(photos[1]), f"folder:{folder}", query, "--k", "2"]
    assert main(words) == 0
    lines = capfdbinary.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[0].endswith(b"caf\\udce9.png")
    assert lines[1].startswith(b"  1.000  ")
    assert b"\x1b" not in b"".join(lines)


def test_the_range_is_that_of_images_and_queries(photos, capsys):
    folder, source = photos
    words = ["nearest", str(source), f"folder:{folder}", "--json", "--k", "6"]
    found = []
    for options in ([], ["--range", "0,1"]):
        query = str(folder / "a" / "1.png")
        assert main([*words, query, *options]) == 0
        rows = json.loads(capsys.readouterr().out)[query]
        found.append([row["similarity"] for row in rows])
    assert min(found[0]) < 0.999
    # All become white but the first, which has no red and is farthest.
    np.testing.assert_allclose(found[1], 1, atol=1e-5)


@pytest.mark.parametrize(
    "channels, dtype, suffix, options",
    [
        (1, "uint8", "png", []),
        (1, "float32", "png", []),
        (3, "uint8", "png", []),
        (3, "uint8", "png", ["--range", "20,90"]),
        (6, "uint8", "tif", []),
        (6, "uint16", "tif", ["--range", "0,40000"]),
    ],
)
def test_queries_are_read_as_arrays_are(
    channels, dtype, suffix, options, tmp_path, capsys
):
    pixels = bands(8, size=16, channels=channels)
    if dtype != "uint16":
        pixels = (pixels // 257).astype(dtype)
    np.savez(tmp_path / "x.npz", images=pixels)
    some = {"mean": [0.5] * channels, "std": [0.2] * channels}
    source, query = tmp_path / "e.keras", tmp_path / f"query.{suffix}"
    shape = (16, 16, channels)
    encoders.build("resnet_nano", shape, **some).save(source)
    if suffix == "tif":
        tiff(query, pixels[5])
    else:
        one = pixels[5].astype("uint8")
        Image.fromarray(one[..., 0] if channels == 1 else one).save(query)
    words = ["nearest", source, tmp_path / "x.npz", query, "--json", *options]
    assert main([*map(str, words)]) == 0
    row, *others = json.loads(capsys.readouterr().out)[str(query)]
    assert row["index"] == 5 and row["similarity"] > 1 - 1e-5
    assert others[0]["similarity"] < 1 - 1e-5


@pytest.mark.parametrize(
    "words, message",
    [
        (["nowhere.png"], "There is no image file nowhere.png"),
        ([__file__], "can't be read as an image"),
        (["QUERY", "--k", "9"], "between 1 and the 8"),
    ],
)
def test_mistakes_are_one_line(words, message, photos, capsys):
    folder, source = photos
    words = [str(folder / "a/1.png") if w == "QUERY" else w for w in words]
    assert main(["nearest", str(source), f"folder:{folder}", *words]) == 2
    error = capsys.readouterr().err
    assert message in error.strip().splitlines()[-1]
    assert "Traceback" not in error


@pytest.mark.parametrize(
    "words, message",
    [
        (["a/1.png", "--output", "near.xyz"], "must end with .png, .pdf or"),
        (["a/1.png", "--output", "near"], "must end with .png, .pdf or"),
        (["a/1.png", "--output", "near.png"], "near.png is a folder"),
        (["a/1.png", "--output", "mine/a/b.png"], "mine"),
        (["a/1.png", "--output", "b.png", "NO"], 'install "kerassl[viz]"'),
        (["notes.txt"], "can't be read as an image"),
        (["a/1.png", "--k", "9"], "between 1 and the 8"),
    ],
)
def test_mistakes_are_found_before_images_are_embedded(
    words, message, photos, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "near.png").mkdir()
    for name in ("mine", "notes.txt"):
        (tmp_path / name).touch()
    if "NO" in words:
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setattr(encoders, "embed", pytest.fail)
    before = sorted(tmp_path.iterdir())
    folder, source = photos
    query, *words = [word for word in words if word != "NO"]
    query = query if query == "notes.txt" else str(folder / query)
    command = ["nearest", str(source), f"folder:{folder}", query, *words]
    assert main(command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("name", ["resnet_nano", "vit_nano"])
def test_patches_are_the_map_that_is_pooled(name, tmp_path, capsys):
    encoder = encoders.build(name, (16, 16, 3))
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), "uint8")
    maps = encoders.embed(encoder, images, patches=True)
    if name == "resnet_nano":
        expected = encoders.embed(encoder, images)
        np.testing.assert_allclose(maps.mean((1, 2)), expected, atol=1e-5)
    assert maps.shape == (5, *((4, 4, 96) if "vit" in name else (2, 2, 128)))


def test_patches_are_written(tmp_path, capsys):
    encoder = encoders.build("resnet_nano", (16, 16, 3))
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), "uint8")
    maps = encoders.embed(encoder, images, patches=True)
    encoder.save(tmp_path / "e.keras")
    np.save(tmp_path / "images.npy", images)
    words = ["embed", tmp_path / "e.keras", tmp_path / "images.npy"]
    for suffix in ("npz", "npy", "parquet"):
        path = tmp_path / f"f.{suffix}"
        options = ["--patches", "--batch-size", "2", "--output", path]
        assert main([*map(str, [*words, *options])]) == 0
        grid = " x ".join(map(str, maps.shape[1:3]))
        assert f"at {grid} patches" in capsys.readouterr().out
    np.testing.assert_allclose(
        np.load(path.with_suffix(".npy")), maps, atol=1e-5
    )
    arrays = np.load(path.with_suffix(".npz"))
    np.testing.assert_allclose(arrays["features"], maps, atol=1e-5)
    table = parquet.read_table(path)
    shape = json.loads(table.schema.metadata[b"shape"])
    rows = np.array(table["features"].to_pylist()).reshape(5, *shape)
    np.testing.assert_allclose(rows, maps, atol=1e-5)


def test_a_layer_has_no_patches():
    encoder = encoders.build("resnet_nano", (16, 16, 3))
    images = np.zeros((1, 16, 16, 3), "uint8")
    with pytest.raises(ValueError, match="but not both"):
        encoders.embed(encoder, images, "stage1", patches=True)
