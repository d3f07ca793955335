"""Data sets on a Hub of the test's own."""

import io

import huggingface_hub
import numpy as np
import pytest
from PIL import Image

from kerassl.data.errors import SplitError
from kerassl.data.load import load, peek_size
from tests.backends import once
from tests.hub_server import Fault, HubServer
from tests.hub_server.client import connect

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
pytestmark = once

NAME = "alice/photos"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with HubServer() as hub:
        connect(monkeypatch, hub, tmp_path / "cache")
        huggingface_hub.HfFileSystem.clear_instance_cache()
        huggingface_hub.HfApi().create_repo(NAME, repo_type="dataset")
        yield hub


def table(values):
    def encoded(value):
        file = io.BytesIO()
        Image.new("RGB", (20, 20), (value,) * 3).save(file, "png")
        return {"bytes": file.getvalue(), "path": None}

    columns = {"image": list(map(encoded, values)), "label": values}
    file = io.BytesIO()
    parquet.write_table(pa.table(columns), file)
    return file.getvalue()


def push(files, branch="main"):
    add = huggingface_hub.CommitOperationAdd
    return huggingface_hub.HfApi().create_commit(
        NAME,
        [add(path, content) for path, content in files.items()],
        commit_message="Add files",
        repo_type="dataset",
        revision=branch,
    )


def values(data):
    return np.asarray(data.images)[:, 0, 0, 0].tolist()


TRAIN = {
    "data/train-00001-of-00002.parquet": table([3, 4]),
    "data/train-00000-of-00002.parquet": table([1, 2]),
}
TEST = {"data/test-00000-of-00001.parquet": table([5])}


def test_splits_are_downloaded_once(hub):
    commit = push({**TRAIN, **TEST, "README.md": b"---\nlicense: mit\n---\n"})
    assert peek_size(f"hf:{NAME}") == (20, True)
    assert hub.count("GET", "train-00001") == 0
    data = load(f"hf:{NAME}", image_size=8)
    assert values(data) == [1, 2, 3, 4] and data.labels.tolist() == [0, 1, 2, 3]
    assert data.name == f"hf:{NAME}@{commit.oid}"
    asked = hub.count("GET", "parquet")
    assert asked > 0
    assert hub.count("GET", "test-0") == 0
    assert values(load(data.name, image_size=8, limit=2)) == [1, 3]
    assert peek_size(f"hf:{NAME}") == (20, True)
    assert hub.count("GET", "parquet") == asked
    assert values(load(f"hf:{NAME}", "test", image_size=8)) == [5]
    with pytest.raises(SplitError, match=r"'validation'.*\['test', 'train'\]"):
        load(f"hf:{NAME}", "validation")


def test_a_split_without_rows(hub):
    file = io.BytesIO()
    kinds = [("image", pa.binary()), ("label", pa.int64())]
    parquet.write_table(pa.schema(kinds).empty_table(), file)
    push({"data/train-0.parquet": file.getvalue()})
    for name in (f"hf:{NAME}", f"hf://datasets/{NAME}"):
        with pytest.raises(ValueError, match=f"'{name}' holds no image"):
            load(name)


def test_files_of_other_splits_are_not_trained_on(hub, caplog):
    named = {"train": 1, "dev": 2, "unlabeled": 3, "test": 4}
    shard = "-00000-of-00001.parquet"
    push({f"data/{name}{shard}": table([n]) for name, n in named.items()})
    assert values(load(f"hf:{NAME}", image_size=8)) == [1]
    assert f"data/dev{shard}, data/unlabeled{shard}" in caplog.text
    # They can be asked for.
    assert values(load(f"hf:{NAME}", "unlabeled", image_size=8)) == [3]
    with pytest.raises(SplitError, match=r"\['dev', 'test', 'train', 'unl"):
        load(f"hf:{NAME}", "extra")


def test_files_that_name_no_split_are_for_training(hub, caplog):
    push({"0000.parquet": table([1]), "0001.parquet": table([2])})
    assert values(load(f"hf:{NAME}", image_size=8)) == [1, 2]
    assert "Left out" not in caplog.text
    push({"test.parquet": table([3])})
    with pytest.raises(SplitError, match=r"It has \['test'\]"):
        load(f"hf:{NAME}")


def test_a_pinned_name_never_means_others(hub):
    push(TRAIN)
    pinned = load(f"hf:{NAME}", image_size=8).name
    push({path: table([7, 8]) for path in TRAIN})
    assert values(load(pinned, image_size=8)) == [1, 2, 3, 4]
    assert values(load(f"hf:{NAME}", image_size=8)) == [7, 8, 7, 8]


def test_one_of_several_folders(hub):
    push(
        {
            "small/train/0000.parquet": table([1]),
            "large/train/0000.parquet": table([2]),
            "large/test/0000.parquet": table([3]),
        }
    )
    with pytest.raises(ValueError, match="several data sets.*large, small"):
        load(f"hf:{NAME}")
    assert values(load(f"hf:{NAME}/small", image_size=8)) == [1]
    data = load(f"hf:{NAME}/large", "test", image_size=8)
    assert values(data) == [3] and f"{NAME}/large@" in data.name
    with pytest.raises(ValueError, match="no such folder.*large, small"):
        load(f"hf:{NAME}/medium")


def test_what_the_hub_converted(hub):
    push({"photos.zip": b"PK"})
    with pytest.raises(ValueError, match="no Parquet files"):
        load(f"hf:{NAME}")
    api = huggingface_hub.HfApi()
    branch = "refs/convert/parquet"
    api.create_branch(NAME, branch=branch, repo_type="dataset")
    push({"default/train/0000.parquet": table([6])}, branch)
    data = load(f"hf:{NAME}", image_size=8)
    assert values(data) == [6]
    assert values(load(data.name, image_size=8)) == [6]


@pytest.mark.parametrize("in_memory", [True, False])
def test_streamed(hub, monkeypatch, tmp_path, in_memory):
    if not in_memory:
        monkeypatch.setattr("kerassl.data.photo_checks._IN_MEMORY_BYTES", 0)
    commit = push({**TRAIN, **TEST})
    data = load(f"hf://datasets/{NAME}", image_size=8)
    assert data.name == f"hf://datasets/{NAME}@{commit.oid}"
    push({path: table([7, 8]) for path in TRAIN})
    assert values(data) == [1, 2, 3, 4] and data.labels.tolist() == [0, 1, 2, 3]
    again = load(data.name, image_size=8)
    assert values(again) == [1, 2, 3, 4]
    for batch in (again.batches(2, shuffle=True, seed=i) for i in range(3)):
        seen = np.concatenate([batch[0][1], batch[1][1]])
        assert sorted(seen) == [0, 1, 2, 3]
    assert values(load(f"hf://datasets/{NAME}", "test", image_size=8)) == [5]
    assert not list(tmp_path.rglob("*.parquet"))  # Nothing is stored.
    # By their names.
    some = f"hf://datasets/{NAME}@{commit.oid}/data/train-*.parquet"
    assert values(load(some, image_size=8)) == [1, 2, 3, 4]
    hub.faults.append(Fault("test-0", times=100, status=404))
    with pytest.raises((FileNotFoundError, ValueError), match="hf://datasets"):
        load(f"hf://datasets/{NAME}", "test")


def test_streamed_from_a_folder(hub):
    push(
        {
            f"{name}/train/0000.parquet": table([n])
            for n, name in enumerate("ab")
        }
    )
    with pytest.raises(ValueError, match=r"\[@REVISION\]\[/FOLDER\]: a, b"):
        load(f"hf://datasets/{NAME}")
    data = load(f"hf://datasets/{NAME}@main/b", image_size=8)
    assert values(data) == [1] and data.name.endswith("/b")
    assert values(load(data.name, image_size=8)) == [1]
    with pytest.raises(ValueError, match="hf://datasets/OWNER/NAME"):
        load("hf://datasets/photos")


def test_streamed_from_the_branch_of_what_was_converted(hub):
    push({"photos.zip": b"PK"})
    branch = "refs/convert/parquet"
    huggingface_hub.HfApi().create_branch(
        NAME, branch=branch, repo_type="dataset"
    )
    push({f"{n}/train/0000.parquet": table([int(n)]) for n in "12"}, branch)
    source = f"hf://datasets/{NAME}@{branch}"
    with pytest.raises(ValueError, match="several data sets.*1, 2"):
        load(source)
    assert values(load(f"{source}/2", image_size=8)) == [2]
    assert values(load(f"hf:{NAME}/1@{branch}", image_size=8)) == [1]


def test_a_connection_that_drops_while_streaming(hub, monkeypatch):
    monkeypatch.setattr("kerassl.data.remote._PAUSES", ())
    push(TRAIN)
    hub.faults.append(Fault("/train-00000", times=100, cut=9, method="GET"))
    with pytest.raises(ValueError, match="00000-of-.*' can't be read"):
        load(f"hf://datasets/{NAME}", image_size=8)


def test_what_is_not_there(hub):
    with pytest.raises(ValueError, match="hf:OWNER/NAME"):
        load("hf:photos")
    with pytest.raises(FileNotFoundError, match="hf:alice/others"):
        load("hf:alice/others")
    push(TRAIN)
    with pytest.raises(FileNotFoundError, match="hf:alice/photos@v9"):
        load(f"hf:{NAME}@v9")
    hub.faults.append(Fault("/resolve/", times=100, status=404))
    with pytest.raises(FileNotFoundError, match="can't be downloaded"):
        load(f"hf:{NAME}")


def test_without_a_network(hub, monkeypatch, tmp_path):
    connect(monkeypatch, hub, tmp_path / "cache", offline=True)
    with pytest.raises(FileNotFoundError, match="name its files"):
        load(f"hf:{NAME}")
