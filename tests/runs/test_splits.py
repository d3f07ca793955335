"""Which images are learned from, and which are scored."""

import numpy as np
import pytest
from PIL import Image

from kerassl import runs
from kerassl.data import ImageData
from kerassl.runs.splits import LabeledSplits
from tests.data.test_sources import many


def write(folder, classes, count=10, seed=0):
    """Writes images of classes into a folder; returns its name as data."""
    rng = np.random.default_rng(seed)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 256, (8, 8, 3), "uint8")
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return f"folder:{folder}"


def paths(part):
    return [str(path) for path in part.paths]


def test_a_fifth_is_held_out_where_there_is_no_test_split(tmp_path):
    data = write(tmp_path, ["ant", "bee", "cat"])
    splits = LabeledSplits(data, image_size=(8, 8))
    train, test = splits.parts["train"], splits.parts["test"]
    assert len(train.images) == 24 and len(test.images) == 6
    for part, count in ((train, 8), (test, 2)):
        assert np.bincount(part.labels).tolist() == [count] * 3
    assert not set(paths(train)) & set(paths(test))
    assert splits.settings == {"held_out": 0.2}
    (note,) = splits.notes
    assert "20% of the training images" in note and splits.name == data
    # The same ones again, and at any limit; limits keep all classes.
    few = LabeledSplits(
        data, image_size=(8, 8), train_limit=6, test_limit=3
    ).parts
    assert set(paths(few["train"])) < set(paths(train))
    assert set(paths(few["test"])) < set(paths(test))
    assert set(few["train"].labels) == set(few["test"].labels) == {0, 1, 2}


def test_data_of_the_hub_are_called_as_a_run_records_them(monkeypatch):
    pixels = np.zeros((4, 8, 8, 3), "uint8")

    def load(spec, split, **options):
        name = f"{spec}@{40 * 'a'}"
        return ImageData(pixels, np.arange(4) % 2, None, name)

    monkeypatch.setattr("kerassl.data.load", load)
    splits = LabeledSplits("hf:alice/photos")
    assert splits.name == f"hf:alice/photos@{40 * 'a'}"


def test_a_few_of_a_streamed_data_set_cost_few_row_groups(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("kerassl.data.parquet.MAX_BYTES", 100)
    monkeypatch.setattr("kerassl.data.photo_checks._IN_MEMORY_BYTES", 0)
    path = str(many(tmp_path / "x.parquet"))
    splits = LabeledSplits(path, image_size=(8, 8), train_limit=20)
    records = splits.parts["train"].images.records
    assert len(records) == 20 and len(set(records.rows // 5)) == 8


def test_arrays_without_a_test_split(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (20, 8, 8, 3), "uint8"), np.arange(20) % 2
    np.savez(tmp_path / "a.npz", images=x, labels=y)
    splits = LabeledSplits(str(tmp_path / "a.npz"))
    assert len(splits.parts["test"].images) == 4
    np.savez(tmp_path / "b.npz", x_train=x, y_train=y, x_val=x, y_val=y)
    splits = LabeledSplits(str(tmp_path / "b.npz"))
    assert len(splits.parts["test"].images) == 20
    assert splits.settings == {"test_split": "validation"}
    np.savez(tmp_path / "c.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    splits = LabeledSplits(str(tmp_path / "c.npz"))
    assert not splits.settings and not splits.notes
    # Others take the place of one of them, or of both.
    splits = LabeledSplits(
        str(tmp_path / "c.npz"), test=str(tmp_path / "a.npz"), test_limit=5
    )
    assert len(splits.parts["test"].images) == 5
    assert splits.name == f"{tmp_path / 'c.npz'} and {tmp_path / 'a.npz'}"
    with pytest.raises(ValueError, match="or both `train` and `test`"):
        LabeledSplits(train=str(tmp_path / "a.npz"))
    np.savez(tmp_path / "d.npz", images=x)
    with pytest.raises(ValueError, match="d.npz have no labels"):
        LabeledSplits(str(tmp_path / "d.npz"))


def test_a_test_split_without_labels_is_not_scored(tmp_path):
    """As competitions have them, and ImageNet."""
    write(tmp_path / "train", ["ant", "bee"])
    (tmp_path / "test").mkdir()
    for i in range(3):
        pixels = np.full((8, 8, 3), 50 * i, "uint8")
        Image.fromarray(pixels).save(tmp_path / "test" / f"{i}.png")
    data = f"folder:{tmp_path}"
    splits = LabeledSplits(data, image_size=(8, 8))
    assert len(splits.parts["test"].images) == 4
    assert "test split of" in splits.notes[0] and "20%" in splits.notes[0]
    with pytest.raises(ValueError, match="have no labels"):
        train = f"folder:{tmp_path / 'train'}"
        LabeledSplits(train=train, test=data, image_size=(8, 8))
    write(tmp_path / "val", ["ant", "bee"], count=3, seed=1)
    splits = LabeledSplits(data, image_size=(8, 8))
    assert len(splits.parts["test"].images) == 6
    assert splits.settings == {"test_split": "validation"}
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (20, 8, 8, 3), "uint8"), np.arange(20) % 2
    no = np.full(20, -1)
    np.savez(tmp_path / "a.npz", x_train=x, y_train=y, x_test=x, y_test=no)
    splits = LabeledSplits(str(tmp_path / "a.npz"))
    assert splits.settings == {"held_out": 0.2}


def test_folders_are_compared_by_the_names_of_their_classes(tmp_path):
    train = write(tmp_path / "a", ["ant", "bee", "cat"])
    test = write(tmp_path / "b", ["bee", "cat", "dog"], count=2, seed=1)
    splits = LabeledSplits(train=train, test=test, image_size=(8, 8))
    labels = [part.labels.tolist() for part in splits.parts.values()]
    assert labels[0] == [n for n in ("ant", "bee", "cat") for _ in range(10)]
    assert labels[1] == ["bee", "bee", "cat", "cat", "dog", "dog"]
    assert splits.notes == [
        "2 of 6 test images have classes that no training image has, and count "
        "as missed: 'dog'."
    ]
    assert splits.name == f"{train} and {test}"
    other = write(tmp_path / "c", ["elk", "fox"], count=2)
    with pytest.raises(ValueError, match="'elk', 'fox' in the test images"):
        LabeledSplits(train=train, test=other, image_size=(8, 8))


def test_images_to_score_are_not_learned_from(tmp_path):
    write(tmp_path / "photos" / "train", ["ant", "bee"])
    both = f"folder:{tmp_path / 'photos'}"
    inner = f"folder:{tmp_path / 'photos' / 'train'}"
    with pytest.raises(
        ValueError, match="20 images are both .*test data, such as .*0.png"
    ):
        LabeledSplits(both, test=inner, image_size=(8, 8))


def test_an_evaluation_of_a_folder_without_splits(tmp_path):
    """End to end, with classes by name."""
    import keras

    rng = np.random.default_rng(0)
    for folder, names in (("a", "xyz"), ("b", "yz")):
        for name in names:
            (tmp_path / folder / name).mkdir(parents=True)
            for i in range(10):
                pixels = rng.integers(0, 9, (8, 8, 3))
                pixels[..., "xyz".index(name)] += 200
                Image.fromarray(pixels.astype("uint8")).save(
                    tmp_path / folder / name / f"{i}.png"
                )
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 128, -1)(inputs))
    keras.Model(inputs, x).save(tmp_path / "e.keras")
    source, a, b = (tmp_path / name for name in ("e.keras", "a", "b"))
    for subject in (
        runs.Evaluation(source, f"folder:{a}"),
        runs.Evaluation(source, train=f"folder:{a}", test=f"folder:{b}"),
    ):
        for name in ("knn", "linear"):
            settings = {"k": 3} if name == "knn" else {"per_class": 4}
            protocol = runs.protocol(name, **settings)
            protocol.check(subject)
            scores = protocol.measure(subject)
            assert scores["accuracy"] == 1.0
            assert ("held_out" in scores) == (subject.data == f"folder:{a}")


def test_percentiles_are_measured_once(tmp_path):
    """Or equal values would differ between what is learned and scored."""
    path = tmp_path / "values.npz"
    shape = (40, 8, 8, 1)
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2
    np.savez(
        path,
        x_train=rng.integers(0, 1000, shape, "uint16"),
        y_train=labels,
        x_test=rng.integers(0, 4000, shape, "uint16"),
        y_test=labels,
    )
    parts = LabeledSplits(str(path), value_range="1%,99%").parts
    assert parts["train"].value_range == parts["test"].value_range
    assert max(parts["train"].value_range.high) < 1000
