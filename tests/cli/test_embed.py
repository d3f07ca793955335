"""`kerassl embed`: a file with the features of images."""

import importlib
import json

import keras
import numpy as np
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from kerassl import data, encoders, load_encoder, runs
from kerassl.cli.main import main
from kerassl.data.photos import Photos
from kerassl.runs import features as written

FASHION = "fashion_mnist_small"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The file of an encoder."""
    path = tmp_path_factory.mktemp("encoder") / "e.keras"
    encoders.build("resnet_nano", (28, 28, 1)).save(path)
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of eight images of two classes, and a small RGB encoder."""
    folder = tmp_path_factory.mktemp("photos")
    pixels = np.random.default_rng(0).integers(0, 256, (8, 12, 12, 3), "uint8")
    for number, image in enumerate(pixels):
        path = folder / "ab"[number // 4] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(path)
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))
    path = folder.with_suffix(".keras")
    keras.Model(inputs, keras.layers.Dense(5)(x)).save(path)
    return folder, path


def embed(*words):
    return main(["embed", *map(str, words)])


def table(path):
    """Returns the columns of a Parquet file."""
    found = parquet.read_table(path)
    classes = json.loads((found.schema.metadata or {}).get(b"class_names", "0"))
    return found.to_pydict() | {"class_names": classes}


@pytest.fixture
def blocks(monkeypatch):
    """Makes each batch a block of its own."""
    monkeypatch.setattr(written, "BLOCK", 1)


def interrupt(monkeypatch, block):
    """Stops at a block, as by Ctrl-C."""
    before = encoders.embed
    calls = []

    def embed(model, images, **options):
        calls.append(len(images))
        if len(calls) > block:
            raise KeyboardInterrupt
        return before(model, images, **options)

    monkeypatch.setattr(encoders, "embed", embed)
    return calls


def test_the_features_are_those_of_the_encoder(source, tmp_path, capsys):
    words = (source, FASHION, "--limit", 40, "--split", "test")
    for suffix in ("npz", "npy", "parquet"):
        path = tmp_path / "new" / f"f.{suffix}"
        assert embed(*words, "--output", path) == 0
        assert capsys.readouterr().out == (
            f"Wrote {path}: 128 features of each of 40 images\n"
        )
    images, labels = data.load(FASHION, "test", limit=40)
    wanted = encoders.embed(load_encoder(source), images)
    assert wanted.shape == (40, 128)
    folder = tmp_path / "new"
    arrays, rows = dict(np.load(folder / "f.npz")), table(folder / "f.parquet")
    assert list(arrays) == ["features", "labels", "class_names"]
    assert list(rows) == ["labels", "features", "class_names"]
    for found in (np.load(folder / "f.npy"), arrays["features"]):
        assert found.dtype == "float32"
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(arrays["features"], rows["features"])
    for found in (arrays["labels"], rows["labels"]):
        np.testing.assert_array_equal(found, labels)
    assert arrays["class_names"].tolist() == rows["class_names"]
    assert rows["class_names"][1] == "Trouser"
    assert len(list(folder.iterdir())) == 3

    words = (*words, "--layer", "stages", "--batch-size", 7)
    assert embed(*words, "--output", folder / "f.npy", "--overwrite") == 0
    wanted = encoders.embed(load_encoder(source), images, "stages")
    found = np.load(folder / "f.npy")
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_the_rows_of_a_folder_have_paths(photos, tmp_path, monkeypatch):
    folder, source = photos
    words = (source, folder, "--limit", 6, "--output")
    assert embed(*words, tmp_path / "f.npz") == 0
    arrays = dict(np.load(tmp_path / "f.npz"))
    # As if there were too many to decode them at once.
    monkeypatch.setattr("kerassl.data.photo_checks._IN_MEMORY_BYTES", 0)
    assert embed(*words, tmp_path / "f.parquet") == 0
    rows = table(tmp_path / "f.parquet")
    paths = list(map(str, data.load(str(folder), image_size=8, limit=6).paths))
    assert arrays["paths"].tolist() == rows["paths"] == paths
    assert arrays["labels"].tolist() == rows["labels"] == [0, 0, 0, 1, 1, 1]
    assert rows["class_names"] == ["a", "b"]
    np.testing.assert_array_equal(arrays["features"], rows["features"])

    # A row has the path of the image that took the place of an unreadable one.
    file = runs.FeatureFile(source, str(folder), tmp_path / "g.npz", limit=6)
    read = Photos.read
    monkeypatch.setattr(
        Photos,
        "read",
        lambda self, rows: read(self, np.where(rows == 1, 4, rows)),
    )
    file.write()
    replaced = dict(np.load(tmp_path / "g.npz"))
    order = [0, 4, 2, 3, 4, 5]
    for name in ("features", "labels", "paths"):
        np.testing.assert_array_equal(replaced[name], arrays[name][order])


@pytest.mark.parametrize("suffix", ["npz", "npy", "parquet"])
def test_what_was_interrupted_goes_on(
    source, suffix, tmp_path, capsys, monkeypatch, blocks
):
    words = (source, FASHION, "--limit", 40, "--batch-size", 16, "--output")
    whole, path = tmp_path / f"whole.{suffix}", tmp_path / f"f.{suffix}"
    assert embed(*words, whole) == 0
    with monkeypatch.context() as patch:
        interrupt(patch, 2)
        assert embed(*words, path) == 130
    assert "continues after 32 of 40" in capsys.readouterr().err
    assert not path.exists()
    # A power failure after the last note.
    rows = tmp_path / f".f.{suffix}.unfinished" / written.ROWS
    with open(rows, "ab") as file:
        file.write(b"half a row")
    rows.with_name(f".partial-0-f.{suffix}").touch()
    with monkeypatch.context() as patch:
        calls = interrupt(patch, 3)
        assert embed(*words, path) == 0
    assert calls == [8]
    assert "32 of 40 images are written" in capsys.readouterr().err
    assert path.read_bytes() == whole.read_bytes()
    assert sorted(tmp_path.iterdir()) == sorted([path, whole])


def test_it_goes_on_only_with_the_same_settings(
    source, tmp_path, capsys, monkeypatch, blocks
):
    path = tmp_path / "f.npy"
    words = (source, FASHION, "--limit", 40, "--batch-size", 16, "--output")
    with monkeypatch.context() as patch:
        interrupt(patch, 1)
        assert embed(*words, path) == 130
    other = source.with_name("other.keras")
    keras.utils.set_random_seed(2)
    encoders.build("resnet_nano", (28, 28, 1)).save(other)
    for words_, told in [
        ((other, *words[1:], path), "(encoder)"),
        ((*words, path, "--limit", 39), "(images)"),
        ((*words, path, "--layer", "stage2", "--batch-size", 8), "(layer, bat"),
    ]:
        assert embed(*words_) == 2
        assert f"unfinished with other settings {told}" in (
            capsys.readouterr().err
        )
    # Killed before the first note of another start.
    with monkeypatch.context() as patch:
        patch.setattr(written.FeatureFile, "_notes", None)
        with pytest.raises(TypeError):
            embed(*words, path, "--limit", 39, "--overwrite")
    assert not list(tmp_path.iterdir())
    assert embed(*words, path) == 0 and np.load(path).shape == (40, 128)


def test_notes_are_written_on_the_way(source, tmp_path, monkeypatch, blocks):
    def file():
        return runs.FeatureFile(
            source, FASHION, tmp_path / "f.npy", limit=40, batch_size=16
        )

    monkeypatch.setattr(written, "EVERY", 0)
    known = []
    first = file()
    first.write(
        lambda *what: known.append(
            json.loads((first.folder / written.JOURNAL).read_text())["done"]
            if first.done
            else 0
        )
    )
    assert known == [0, 16, 32, 40]


def test_mistakes_have_one_line(source, photos, tmp_path, capsys, monkeypatch):
    existing = tmp_path / "there.npz"
    existing.touch()
    path = tmp_path / "f.npz"
    for words, told in [
        ((source, FASHION, "--output", existing), "exists already"),
        ((source, FASHION, "--output", tmp_path), "must end with .npz"),
        ((source, "fashion", "--output", path), "no images called 'fashion'"),
        ((source, FASHION, "--split", "x", "--output", path), "'x'"),
        ((source, FASHION, "--layer", "stag", "--output", path), "stage1"),
        (("simclr_nano", FASHION, "--output", path), "no encoder simclr_nano"),
        ((source, photos[0], "--output", path), "images of 1 channels"),
        ((source, FASHION, "--output", existing / "f.npy"), "written"),
    ]:
        assert embed(*words) == 2, told
        error = capsys.readouterr().err
        assert told in error and error.count("\n") == 1
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: None if name == "pyarrow" else found(name),
    )
    assert embed(source, FASHION, "--output", tmp_path / "f.parquet") == 2
    assert 'pip install "kerassl[features]"' in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [existing]
