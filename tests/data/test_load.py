import hashlib
import pickle
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import kerassl.data
from kerassl.data.load import peek_size
from kerassl.data.photos import Photos
from tests.backends import once

pytestmark = once

EMBEDDED = Path(kerassl.data.__file__).parent / "fashion_mnist_small"


def tfds_or_skip(name):
    tfds = pytest.importorskip("tensorflow_datasets")
    if not tfds.builder(name).is_prepared():
        pytest.skip(f"{name} isn't prepared on this machine.")


def test_embedded_data():
    data = kerassl.data.load("fashion_mnist_small")
    images, labels = data
    assert images.shape == (10_000, 28, 28, 1) and images.dtype == "uint8"
    assert data.image_shape == (28, 28, 1)
    assert labels.dtype == "int64"
    np.testing.assert_array_equal(np.bincount(labels), [1000] * 10)
    assert len(set(labels[:50])) == 10  # Any beginning is mixed.
    assert data.class_names[9] == "Ankle boot"
    test = kerassl.data.load("fashion_mnist_small", "test", limit=500)
    assert len(test.images) == len(test.labels) == 500
    assert test.take(3).images.shape == (3, 28, 28, 1)
    with pytest.raises(ValueError, match="validation"):
        kerassl.data.load("fashion_mnist_small", "validation")


def test_embedded_file_is_the_one_it_says():
    content = (EMBEDDED / "data.npz").read_bytes()
    assert len(content) < 6e6
    assert (
        hashlib.sha256(content).hexdigest()
        in (EMBEDDED / "ORIGIN.md").read_text()
    )
    assert "Zalando SE" in (EMBEDDED / "LICENSE").read_text()


def test_embedded_is_part_of_the_original():
    tfds_or_skip("fashion_mnist")
    original, labels = kerassl.data.load("fashion_mnist", "test")
    keep = [np.flatnonzero(labels == c)[:200] for c in range(10)]
    keep = np.sort(np.concatenate(keep))
    small = kerassl.data.load("fashion_mnist_small", "test")
    np.testing.assert_array_equal(small.images, original[keep])
    np.testing.assert_array_equal(small.labels, labels[keep])


def test_cifar10():
    tfds_or_skip("cifar10")
    data = kerassl.data.load("cifar10", "test[:100]", limit=64)
    assert data.images.shape == (64, 32, 32, 3)
    assert data.images.std() > 30
    assert data.labels.shape == (64,) and len(data.class_names) == 10
    again = kerassl.data.load("tfds:cifar10", "test", limit=64)
    np.testing.assert_array_equal(data.images, again.images)
    small = kerassl.data.load("cifar10", "test", limit=8, image_size=(16, 8))
    assert small.image_shape == (16, 8, 3)
    with pytest.raises(ValueError, match=r"'dev'.*'test', 'train'"):
        kerassl.data.load("cifar10", "dev")


def test_data_set_that_is_not_there(tmp_path, monkeypatch):
    tfds = pytest.importorskip("tensorflow_datasets")

    def offline(self, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr("kerassl.data.tfds._check_connection", lambda _: None)
    monkeypatch.setattr(
        tfds.core.DatasetBuilder, "download_and_prepare", offline
    )
    with pytest.raises(FileNotFoundError) as error:
        kerassl.data.load("cifar10", data_dir=tmp_path)
    for part in ("cifar10", str(tmp_path), "no network", "tfds build"):
        assert part in str(error.value)


@pytest.fixture
def requested(monkeypatch):
    """The URLs that were asked for; `requested.error` is what came back."""
    requests = pytest.importorskip("requests")

    class Requested(list):
        error = requests.exceptions.ConnectionError

    urls = Requested()

    def get(url, **kwargs):
        urls.append(url)
        assert kwargs["timeout"] <= 10 and kwargs["stream"]
        raise urls.error("no answer")

    monkeypatch.setattr(requests, "get", get)
    return urls


@pytest.fixture
def download(monkeypatch):
    """Counts the downloads, which all fail."""
    tfds = pytest.importorskip("tensorflow_datasets")
    calls = []

    def fail(self, **kwargs):
        calls.append(self.name)
        raise OSError("from TFDS")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fail)
    return calls


def test_offline_downloads_fail_at_once(tmp_path, requested, download):
    with pytest.raises(FileNotFoundError, match="tfds build") as error:
        kerassl.data.load("cifar10", data_dir=tmp_path)
    assert "no connection to www.cs.toronto.edu" in str(error.value)
    assert "folder:PATH" in str(error.value)
    assert len(requested) == 1 and not download


def test_a_slow_answer_is_a_connection(tmp_path, requested, download):
    import requests

    requested.error = requests.exceptions.ReadTimeout
    with pytest.raises(FileNotFoundError, match="from TFDS"):
        kerassl.data.load("cifar10", data_dir=tmp_path)
    assert len(requested) == 1 and download == ["cifar10"]


@pytest.mark.parametrize("folder", ["", "manual", "cifar10/x"])
def test_downloaded_files_need_no_connection(
    tmp_path, requested, download, folder
):
    tfds = pytest.importorskip("tensorflow_datasets")
    (size,) = {i.size for i in tfds.builder_cls("cifar10").url_infos.values()}
    path = tmp_path / "downloads" / folder / "data.tar.gz"
    path.parent.mkdir(parents=True)
    with open(path, "wb") as file:
        file.truncate(size)  # A sparse file.
    with pytest.raises(FileNotFoundError, match="from TFDS"):
        kerassl.data.load("cifar10", data_dir=tmp_path)
    assert not requested and download == ["cifar10"]


def fake_tfds(folder, name, features, examples):
    """Writes a TFDS of a few examples, and returns its name."""
    tfds = pytest.importorskip("tensorflow_datasets")
    tfds.dataset_builders.store_as_tfds_dataset(
        name=name,
        version="1.0.0",
        features=tfds.features.FeaturesDict(features(tfds)),
        split_datasets={"train": list(enumerate(examples))},
        data_dir=folder,
        disable_shuffling=True,
    )
    return name


def test_tfds_with_labels(tmp_path, capfd):
    """As `test_cifar10`, which needs a download, on real images from here."""
    images, labels = kerassl.data.load("fashion_mnist_small", limit=80)
    name = fake_tfds(
        tmp_path,
        "clothes",
        lambda tfds: {
            "image": tfds.features.Image(shape=(28, 28, 1)),
            "label": tfds.features.ClassLabel(names=list("abcdefghij")),
        },
        [{"image": x, "label": y} for x, y in zip(images, labels)],
    )
    data = kerassl.data.load(name, "train[:70]", limit=64, data_dir=tmp_path)
    np.testing.assert_array_equal(data.images, images[:64])
    np.testing.assert_array_equal(data.labels, labels[:64])
    assert data.class_names == tuple("abcdefghij")
    assert "cache" not in capfd.readouterr().err  # TensorFlow warns.
    again = kerassl.data.load(f"tfds:{name}", "train", data_dir=tmp_path)
    np.testing.assert_array_equal(again.images, images)
    small = kerassl.data.load(name, image_size=(16, 8), data_dir=tmp_path)
    assert small.image_shape == (16, 8, 1)
    with pytest.raises(ValueError, match=r"'dev'.*'train'"):
        kerassl.data.load(name, "dev", data_dir=tmp_path)


def test_images_of_various_sizes(tmp_path):
    name = fake_tfds(
        tmp_path,
        "various",
        lambda tfds: {"image": tfds.features.Image(shape=(None, None, 3))},
        [{"image": np.full((20 + i, 30, 3), 7 * i, "uint8")} for i in range(5)],
    )
    with pytest.raises(ValueError, match="image_size"):
        kerassl.data.load(name, data_dir=tmp_path)
    assert peek_size(name, data_dir=tmp_path) == (224, True)
    data = kerassl.data.load(f"tfds:{name}", image_size=8, data_dir=tmp_path)
    assert data.images.shape == (5, 8, 8, 3)
    assert data.labels is None and data.class_names is None
    np.testing.assert_array_equal(data.images[:, 0, 0, 0], 7 * np.arange(5))


@pytest.mark.parametrize("split", ["train", "train[3:]", "train[1:3]"])
def test_photos_of_tfds_stay_in_its_files(tmp_path, split):
    name = fake_tfds(
        tmp_path,
        "labeled_photos",
        lambda tfds: {
            "name": tfds.features.Text(),
            "image": tfds.features.Image(shape=(None, None, 3)),
            "numbers": tfds.features.Tensor(shape=(3,), dtype=np.float32),
            "label": tfds.features.ClassLabel(num_classes=300),
        },
        [
            {
                "name": "x" * 40 * i,
                "image": np.full((20, 30, 3), 7 * i, "uint8"),
                "numbers": np.ones(3, "float32"),
                "label": 30 * i,
            }
            for i in range(9)
        ],
    )
    data = kerassl.data.load(
        name, split, image_size=8, limit=5, data_dir=tmp_path
    )
    right = eval(split.replace("train", "np.arange(9)"))[:5]
    assert isinstance(data.images, Photos)
    np.testing.assert_array_equal(data.images[:, 0, 0, 0], 7 * right)
    np.testing.assert_array_equal(data.labels, 30 * right)
    assert len(data.class_names) == 300
    (file,) = tmp_path.rglob("*.tfrecord*")
    whole = file.read_bytes()
    for size in (len(whole) - 9, 5):  # In a record, and in a header.
        file.write_bytes(whole[:size])
        with pytest.raises(
            ValueError, match=rf"{file.name}' ends early, .* \d"
        ):
            kerassl.data.load(name, image_size=8, data_dir=tmp_path)
    file.write_bytes(whole)
    with pytest.raises(ValueError, match="'labeled_photos' holds no image"):
        kerassl.data.load(name, "train[:0]", image_size=8, data_dir=tmp_path)
    again = pickle.loads(pickle.dumps(data.select([1]).images))
    assert again.records.source(0).read(4) in (b"\x89PNG", b"\xff\xd8\xff\xe0")


def test_images_that_cannot_be_used_are_refused_before_they_are_read(
    tmp_path, monkeypatch
):
    name = fake_tfds(
        tmp_path,
        "clear",
        lambda tfds: {"image": tfds.features.Image(shape=(3, 4, 4))},
        [{"image": np.zeros((3, 4, 4), "uint8")}],
    )
    monkeypatch.setattr("kerassl.data.tfds._examples", None)
    with pytest.raises(ValueError, match=r"1 to 16 channels.*\(1, 3, 4, 4\)"):
        kerassl.data.load(name, data_dir=tmp_path)


def test_size_of_tfds_is_known_without_its_data(tmp_path, download):
    assert peek_size("cifar10", data_dir=tmp_path) == (32, False)
    assert not download


def test_size_of_files_is_read_from_their_headers(tmp_path, monkeypatch):
    images, labels = np.zeros((3, 40, 24, 3), "uint8"), np.arange(3)
    np.save(tmp_path / "a.npy", images)
    np.savez_compressed(tmp_path / "b.npz", y_train=labels, x_train=images)
    np.savez(tmp_path / "gray.npz", images=images[..., 0])
    # `kerassl.data.load` is the function.
    module = sys.modules["kerassl.data.load"]
    monkeypatch.setattr(module, "load_file", None)
    assert peek_size("fashion_mnist_small") == (28, False)
    for name in ("a.npy", "b.npz", "gray.npz"):
        assert peek_size(str(tmp_path / name)) == (24, False)


def test_size_of_a_folder_is_the_median_of_its_first_images(tmp_path):
    image = pytest.importorskip("PIL.Image")
    for i, size in enumerate([(50, 90), (70, 60), (900, 900)]):
        image.new("RGB", size).save(tmp_path / f"{i}.png")
    (tmp_path / "3.png").write_bytes(b"broken")
    assert peek_size(f"folder:{tmp_path}") == (60, True)
    assert peek_size(tmp_path) == (60, True)


def test_size_of_a_folder_that_begins_with_broken_images(tmp_path):
    image = pytest.importorskip("PIL.Image")
    for i in range(21):
        (tmp_path / f"a{i}.png").write_bytes(b"broken")
    with pytest.raises(ValueError, match="21 of 21"):
        peek_size(f"folder:{tmp_path}")
    # Loading tolerates 1 % of them.
    image.new("RGB", (2, 2)).save(tmp_path / "b.png")
    for i in range(2100):
        (tmp_path / f"b{i}.png").hardlink_to(tmp_path / "b.png")
    assert peek_size(f"folder:{tmp_path}") == (224, True)


def test_a_folder_of_the_home_folder(tmp_path, monkeypatch):
    image = pytest.importorskip("PIL.Image")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "photos").mkdir()
    image.new("RGB", (9, 8)).save(tmp_path / "photos" / "a.png")
    for spec in ("~/photos", "folder:~/photos"):
        assert len(kerassl.data.load(spec, image_size=8).images) == 1
        assert peek_size(spec) == (8, True)


@pytest.mark.parametrize("spec", ["my_photos", "1", "photos:1.5", "a b"])
def test_a_folder_by_a_bare_name_says_that_it_is_one(
    spec, tmp_path, monkeypatch
):
    image = pytest.importorskip("PIL.Image")
    monkeypatch.chdir(tmp_path)
    (tmp_path / spec).mkdir()
    image.new("RGB", (9, 8)).save(tmp_path / spec / "a.png")
    data = kerassl.data.load(spec, image_size=8)
    assert data.name == f"folder:{spec}"
    assert kerassl.data.load(data.name, image_size=8).name == data.name
    path = str(tmp_path / spec)
    assert kerassl.data.load(path, image_size=8).name == path


@pytest.mark.parametrize("suffix", ["npz", "zarr", "csv", "tar"])
def test_a_folder_may_end_as_a_file_does(tmp_path, suffix):
    image = pytest.importorskip("PIL.Image")
    folder = tmp_path / f"x.{suffix}"
    folder.mkdir()
    image.new("RGB", (9, 8)).save(folder / "a.png")
    spec = f"folder:{folder}"
    assert kerassl.data.load(spec, image_size=8).images.shape == (1, 8, 8, 3)
    assert peek_size(spec) == (8, True)


def test_size_fails_as_loading_does(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.npz").write_bytes(b"broken")
    np.savez(tmp_path / "flat.npz", images=np.zeros((3, 4)))
    for spec in (
        "folder:nowhere",
        "nowhere.npz",
        "nowhere.npy",
        f"folder:{tmp_path / 'empty'}",
        str(tmp_path / "broken.npz"),
        str(tmp_path / "flat.npz"),
    ):
        errors = []
        for function in (peek_size, kerassl.data.load):
            with pytest.raises((ValueError, FileNotFoundError)) as error:
                function(spec)
            errors.append((error.type, str(error.value)))
        assert errors[0] == errors[1]


def test_data_set_without_images(tmp_path):
    name = fake_tfds(
        tmp_path,
        "wordy",
        lambda tfds: {"text": tfds.features.Text()},
        [{"text": "word"}],
    )
    with pytest.raises(ValueError, match="no image feature"):
        kerassl.data.load(name, data_dir=tmp_path)


@pytest.mark.parametrize(
    "spec, nearest",
    [
        ("cifer10", "'cifar10'"),
        ("tfds:fashion_mnits", "'fashion_mnist'"),
        ("fashion_mnist_smal", "'fashion_mnist_small'"),
    ],
)
def test_unknown_name_offers_the_nearest(spec, nearest):
    pytest.importorskip("tensorflow_datasets")
    with pytest.raises(ValueError, match=f"Did you mean .*{nearest}"):
        kerassl.data.load(spec)


def test_unknown_forms_and_arguments():
    for spec in ("no/such/path/at all", ""):
        with pytest.raises(ValueError, match=re.escape("'folder:PATH'")):
            kerassl.data.load(spec)
    with pytest.raises(ValueError, match="limit"):
        kerassl.data.load("fashion_mnist_small", limit=0)
    for size in (0, (8, 8, 8), 7.5, "big"):
        with pytest.raises(ValueError, match="image_size"):
            kerassl.data.load("fashion_mnist_small", image_size=size)
