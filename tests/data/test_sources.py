"""Lists, tar files and TFRecords of photos."""

import io
import json
import logging
import pickle
import tarfile
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import kerassl.data
from kerassl.data.files import number_classes
from kerassl.data.inspection import _look
from kerassl.data.load import find, peek_size
from kerassl.data.records import Ranges
from kerassl.data.row_groups import Column, RowGroups
from kerassl.data.tars import _classes, _index
from tests.backends import once

pytestmark = once


def photo(number, size=(30, 20)):
    pixels = np.full((size[1], size[0], 3), 9 * number, "uint8")
    return Image.fromarray(pixels)


def encoded(number, kind="png", size=(30, 20)):
    file = io.BytesIO()
    photo(number, size).save(file, kind)
    return file.getvalue()


def numbers(images):
    return (np.asarray(images)[:, 4, 4, 0] / 9).round().astype(int).tolist()


@pytest.fixture
def files(tmp_path):
    for i in range(6):
        path = tmp_path / "photos" / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        photo(i).save(path)
    return tmp_path


def load(path, **kwargs):
    return kerassl.data.load(path, image_size=8, **kwargs)


def test_a_list_of_paths(files):
    path = files / "some.txt"
    path.write_text(f"photos/3.png\n\n  {files}/photos/1.png  \n")
    data = load(path)
    assert numbers(data.images) == [3, 1]
    assert data.labels is None
    assert [p.name for p in data.paths] == ["3.png", "1.png"]
    assert peek_size(path) == (20, True)


def test_a_table_of_paths(files):
    path = files / "some.csv"
    rows = [f"photos/{i}.png,{'dog cat'.split()[i % 2]},x" for i in range(4)]
    text = "path,label,notes\n" + "\n".join(rows) + "\n"
    path.write_text(text, encoding="utf-8-sig")
    data = load(path)
    assert numbers(data.images) == [0, 1, 2, 3]
    assert data.class_names == ("cat", "dog")
    assert data.labels.tolist() == [1, 0, 1, 0]
    with pytest.raises(ValueError, match=r"'test'.*\['train'\]"):
        load(path, split="test")


def test_lines_without_a_path_are_counted(files, caplog):
    path = files / "some.csv"
    path.write_text("path,label\nphotos/0.png,a\n,a\nphotos/1.png,b\n,b\n")
    data = load(path)
    assert numbers(data.images) == [0, 1] and data.labels.tolist() == [0, 1]
    assert data.notes == ("left out: 2 lines without a path",)
    assert "some.csv': left out: 2 lines" in caplog.text


def test_equal_numbers_are_classes_in_a_fixed_order():
    for names in (["7", "07", "6"], ["07", "6", "7"]):
        assert number_classes(names)[0] == ("6", "07", "7")
    # The order of a set depends on Python's hash seed.
    names = [f"{'0' * i}7" for i in range(9)]
    assert number_classes(names)[0] == tuple(sorted(names))


@pytest.mark.parametrize(
    "names, classes, labels",
    [
        (["10", "-1", "9"], ("9", "10"), [1, -1, 0]),
        (["-1", "-1"], (), [-1, -1]),
        (["cat", "-1"], ("-1", "cat"), [1, 0]),
        ([], (), []),
    ],
)
def test_minus_one_beside_numbers_is_no_label(names, classes, labels):
    found, numbers = number_classes(names)
    assert found == classes and numbers.tolist() == labels


def test_splits_of_a_table_share_their_labels(files):
    path = files / "some.csv"
    path.write_text(
        "label,path,split\n10,photos/0.png,train\n9,photos/1.png,val\n"
        "9,photos/2.png,train\n"
    )
    assert load(path).class_names == ("9", "10")  # Not "10", "9".
    assert load(path).labels.tolist() == [1, 0]
    assert numbers(load(path, split="validation").images) == [1]


def test_a_table_with_spaces_after_commas(files):
    path = files / "some.csv"
    path.write_text("path, label\nphotos/0.png, cat\nphotos/1.png, dog\n")
    data = load(path)
    assert data.class_names == ("cat", "dog") and data.labels.tolist() == [0, 1]


def test_other_splits_of_a_table_are_named(files, caplog):
    path = files / "some.csv"
    names = ("train", "dev", "dev", "Val", "holdout")
    rows = [f"photos/{i}.png,{name}" for i, name in enumerate(names)]
    path.write_text("path,split\n" + "\n".join(rows) + "\n")
    data = load(path)
    assert numbers(data.images) == [0]
    note = "left out: lines of other splits: 'dev' (2), 'holdout' (1)"
    assert data.notes == (note,) and note in caplog.text
    assert numbers(load(path, split="dev").images) == [1, 2]
    with pytest.raises(ValueError, match=r"'dev', 'holdout', 'train'\]"):
        load(path, split="test")


def test_spaces_around_the_cells_of_a_table(files):
    path = files / "some.csv"
    path.write_text(
        "path ,label , split\nphotos/0.png ,cat ,train \n"
        "photos/1.png,cat, train\n photos/2.png,dog,dev \n , dog,train\n"
    )
    data = load(path)
    assert numbers(data.images) == [0, 1]
    assert data.class_names == ("cat", "dog") and data.labels.tolist() == [0, 0]
    assert "left out: 1 lines without a path" in data.notes
    assert numbers(load(path, split="dev").images) == [2]


@pytest.mark.parametrize(
    ["lines", "begin"],
    [
        (['"path,label', "photos/0.png,a"], 1),
        (["path,label", '"photos/0.png,a', "photos/1.png,b"], 2),
        (["path,label", "photos/0.png,a", "", 'photos/1.png,"b', "x,a"], 3),
        (["path,label", 'photos/0.png,"a\nb"', 'photos/1.png,"5" disk"'], 4),
    ],
)
def test_an_open_quote_takes_in_no_rows(files, lines, begin):
    path = files / "x.csv"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=f"x.csv'.*line {begin} on .*Quotes"):
        load(path)


@pytest.mark.parametrize(
    ["name", "text", "message"],
    [
        ("x.csv", "file,label\na.png,1\n", "'path'.*'file', 'label'"),
        ("x.csv", "path,label\na.png,1\nb.png,\n", "line 3"),
        ("x.csv", "path,label\n,1\n\na.png,1\nb.png, \n", "line 5"),
        ("x.csv", 'path,label\na.png,"1\n"\nb.png\n', "line 4"),
        ("x.csv", "path\n", "holds no path"),
        ("x.txt", "\n \n", "holds no path"),
        ("x.txt", "photos/0.png\ngone.png\n", "gone.png.*No such file"),
    ],
)
def test_wrong_lists(files, name, text, message):
    (files / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        load(files / name)


def test_a_list_that_is_not_there_or_no_text(files):
    with pytest.raises(FileNotFoundError, match="gone.txt"):
        load(files / "gone.txt")
    (files / "x.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="can't be read"):
        load(files / "x.txt")


def shard(path, members):
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def shards(tmp_path):
    for i in range(2):
        members = {}
        for j in range(3 * i, 3 * i + 3):
            members[f"a.b/{j:03}.cls"] = b"%d\n" % (j % 2)
            members[f"a.b/{j:03}.jpg"] = encoded(j, "jpeg")
            members[f"a.b/{j:03}.json"] = b"{}"
        shard(tmp_path / f"train-{i}.tar", members)
    return tmp_path


@pytest.mark.parametrize("in_memory", [True, False])
def test_tar_files(shards, monkeypatch, caplog, in_memory):
    if not in_memory:
        monkeypatch.setattr("kerassl.data.photo_checks._IN_MEMORY_BYTES", 0)
    with caplog.at_level(logging.WARNING, logger="kerassl"):
        data = load(f"{shards}/train-*.tar")
    assert "6 .json" in caplog.text
    assert numbers(data.images) == [0, 1, 2, 3, 4, 5]
    assert data.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert data.class_names == ("0", "1")
    again = pickle.loads(pickle.dumps(data))
    assert numbers(again.select([4, 1]).images) == [4, 1]
    assert numbers(load(shards / "train-1.tar", limit=2).images) == [3, 4]
    assert peek_size(f"{shards}/train-*.tar") == (20, True)


def test_the_size_is_that_of_the_first_file(shards, monkeypatch):
    opened = []

    def index(file, suffixes):
        opened.append(file.name)
        return _index(file, suffixes)

    monkeypatch.setattr("kerassl.data.tars._index", index)
    assert peek_size(f"{shards}/train-*.tar") == (20, True)
    assert opened == [f"{shards}/train-0.tar"]
    # If it holds no image, `load` looks at all.
    shard(shards / "train-.tar", {"a.txt": b""})
    assert peek_size(f"{shards}/train-*.tar") == (224, True)
    with pytest.raises(FileNotFoundError, match="test-"):
        peek_size(f"{shards}/test-*.tar")


def test_hidden_files_in_tars(tmp_path, caplog):
    members = {}
    for i in range(3):
        members |= {f"a/._{i}.png": b"\0\5\26\7", f"a/{i}.png": encoded(i)}
        members[f"a/{i}.cls"] = b"%d" % i
    data = load(shard(tmp_path / "x.tar", members))
    assert numbers(data.images) == data.labels.tolist() == [0, 1, 2]
    assert data.notes == () and not caplog.text


def test_each_image_is_inspected_by_one_request(tmp_path, monkeypatch):
    path = shard(tmp_path / "x.tar", {f"{i}.png": encoded(i) for i in range(3)})
    asked = []
    source = Ranges.source

    def counted(records, index):
        asked.append(index)
        return source(records, index)

    photos, *_ = find(str(path))
    monkeypatch.setattr(Ranges, "source", counted)
    counts, unreadable = _look(photos, None)
    assert sorted(asked) == [0, 1, 2] and not unreadable
    assert counts["sizes"] == {"30x20": 3}


def test_images_of_tars_with_one_name_are_counted(tmp_path, caplog):
    members = {f"IMG.{i:03}.png": encoded(i) for i in range(5)}
    data = load(shard(tmp_path / "x.tar", {**members, "a.txt": b""}))
    assert numbers(data.images) == [0]
    words = "left out: 4 images with another's name up to the first dot; files"
    assert words in data.notes[0] and words[10:] in caplog.text


def test_files_of_tars_without_a_suffix_are_counted(tmp_path):
    members = {"0.png": encoded(0), "README": b"", "a.b/LICENSE": b""}
    data = load(shard(tmp_path / "x.tar", members))
    assert data.notes[0].endswith("(2 in all): 2 without a suffix")


def test_reasons_are_the_same_for_all_images_of_tars(tmp_path):
    members = {f"{i}.png": b"no image" for i in range(3)}
    path = shard(tmp_path / "x.tar", {**members, "3.png": encoded(3)})
    data = load(path, max_unreadable=0.8)
    (note,) = data.notes
    assert "by reason: 3 UnidentifiedImageError: cannot" in note
    assert note.endswith("cannot identify image file")


def test_tar_files_without_all_labels(tmp_path, caplog):
    members = {"0.png": encoded(0), "0.cls": b"1", "1.png": encoded(1)}
    data = load(shard(tmp_path / "x.tar", members))
    assert data.labels is None and numbers(data.images) == [0, 1]
    assert "1 of 2 have no .cls" in caplog.text


def test_wrong_tar_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="x-"):
        load(tmp_path / "x-*.tar")
    (tmp_path / "x.tar").write_bytes(b"no tar file" * 100)
    with pytest.raises(ValueError, match="x.tar.*not compressed"):
        load(tmp_path / "x.tar")
    with pytest.raises(ValueError, match="no image.*1 .txt"):
        load(shard(tmp_path / "x.tar", {"a.txt": b""}))
    shard(tmp_path / "x.tar", {"0.png": encoded(0)[:45], "1.png": encoded(1)})
    with pytest.raises(ValueError, match=r"1 of 2.*x.tar\[\d+:\d+\]"):
        load(tmp_path / "x.tar")
    with pytest.raises(ValueError, match="train"):
        load(tmp_path / "x.tar", split="test")


def test_damaged_tar_files(tmp_path):
    path = tmp_path / "x.tar"
    shard(path, {f"{i}.png": encoded(i) for i in range(3)})
    whole = path.read_bytes()
    with tarfile.open(path) as archive:
        *_, last = [member.offset for member in archive]
    # Without an end mark, and with half of one.
    for content in (whole[: last + 1024], whole[: last + 1424]):
        path.write_bytes(content)
        assert numbers(load(path).images) == [0, 1, 2]
    path.write_bytes(whole[:last])
    assert numbers(load(path).images) == [0, 1]
    broken = whole[:last] + b"\xff" * 512 + whole[last + 512 :]
    erased = whole[:last] + bytes(512) + whole[last + 512 :]
    for content in (broken, erased, whole[: last + 100]):
        path.write_bytes(content)
        for read in (load, peek_size):
            with pytest.raises(ValueError, match=f"at byte {last:,}$"):
                read(path)
    path.write_bytes(whole + whole)  # Joined as by `cat`.
    with pytest.raises(ValueError, match="several joined in one"):
        load(path)


def parquet(path, labels=None, key="image", structs=True, names=None):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet as pq

    images = [encoded(i, "jpeg") for i in range(4)]
    if structs:
        images = [{"bytes": image, "path": None} for image in images]
    columns = {key: images}
    if labels is not None:
        columns["label"] = labels
    table = pa.table(columns)
    if names is not None:
        feature = {"label": {"names": names, "_type": "ClassLabel"}}
        text = json.dumps({"info": {"features": feature}})
        table = table.replace_schema_metadata({"huggingface": text})
    pq.write_table(table, path, row_group_size=3)
    return path


def test_parquet_files(tmp_path):
    for i, labels in enumerate(([1, 0, 1, 0], [0, 0, 1, 1])):
        path = tmp_path / f"train-{i}.parquet"
        parquet(path, labels, names=["dog", "cat"])
    data = load(f"{tmp_path}/train-*.parquet")
    assert numbers(data.images) == [0, 1, 2, 3] * 2
    assert data.labels.tolist() == [1, 0, 1, 0, 0, 0, 1, 1]
    assert data.class_names == ("dog", "cat")
    again = pickle.loads(pickle.dumps(data.select([6, 1]).images))
    again._decoded = None
    assert numbers(again) == [2, 1]
    assert peek_size(f"{tmp_path}/train-*.parquet") == (20, True)


def test_a_few_images_of_many_gigabytes_are_pickled():
    pa = pytest.importorskip("pyarrow")
    chunk = pa.array([bytes(10 * 2**20)] * 2, pa.binary())
    # More than the offsets of one chunk can say: they must not be joined.
    values = pa.chunked_array([chunk] * 110)
    records = Column(values, np.arange(len(values)), "x.parquet")
    few = pickle.loads(pickle.dumps(records.select([0, -1])))
    assert len(few) == 2 and few.values.nbytes < 2**25
    assert few.source(1).read() == bytes(10 * 2**20)


def test_parquet_of_others(tmp_path):
    path = tmp_path / "x.parquet"
    assert load(parquet(path, key="photo", structs=False)).labels is None
    data = load(parquet(path, ["b", "a", "b", "a"]), limit=2)
    assert data.class_names == ("a", "b") and data.labels.tolist() == [1, 1]


def test_images_without_a_label_in_each_kind_of_source(files):
    (files / "some.csv").write_text(
        "path,label,split\nphotos/0.png,0,train\nphotos/1.png,1,train\n"
        "photos/2.png,-1,test\n"
    )
    assert load(files / "some.csv", split="test").labels.tolist() == [-1]
    found = load(parquet(files / "some.parquet", [1, -1, 0, -1]))
    assert found.class_names == ("0", "1")
    assert found.labels.tolist() == [1, -1, 0, -1]
    classes, labels = _classes(["-1\n", "3\n"])
    assert classes == ("3",) and labels.tolist() == [-1, 0]


def test_parquet_with_what_cannot_be_used(tmp_path, caplog):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet as pq

    photos = [encoded(0), None, encoded(2)[:40], encoded(3)]
    labels = [1, 2, None, 4]
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"image": photos, "label": labels}), path)
    data = load(path, max_unreadable=0.5)
    assert numbers(data.images) == [0, 3] and data.labels is None
    assert "1 of 4 have none" in caplog.text
    assert "2 of 4 images" in data.notes[0]
    assert "1 ValueError: no bytes" in data.notes[0]


def test_wrong_parquet_files(tmp_path):
    path = tmp_path / "x.parquet"
    with pytest.raises(FileNotFoundError, match="x.parquet"):
        load(path)
    path.write_bytes(b"no Parquet")
    with pytest.raises(ValueError, match="x.parquet.*can't be read"):
        load(path)
    with pytest.raises(ValueError, match="x.parquet'.*'image'.*'text'"):
        pa = pytest.importorskip("pyarrow")
        from pyarrow import parquet as pq

        pq.write_table(pa.table({"text": ["a"]}), path)
        load(path)
    with pytest.raises(ValueError, match="train"):
        load(parquet(path), split="test")


def test_parquet_files_of_several_forms(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet as pq

    images = [encoded(0), encoded(1)]
    columns = {"label": pa.array([0, 1]), "image": images, "id": ["a", "b"]}
    pq.write_table(pa.table(columns), tmp_path / "0.parquet")
    other = {"image": images, "label": pa.array([1, 1])}
    pq.write_table(pa.table(other), tmp_path / "1.parquet")
    # The order of columns, and others, make no difference.
    data = load(f"{tmp_path}/*.parquet")
    assert numbers(data.images) == [0, 1, 0, 1]
    assert data.labels.tolist() == [0, 1, 1, 1]
    # Nor does it if a file has no missing labels by its schema.
    for i, nullable in enumerate((True, False)):
        kinds = pa.schema(
            [("image", pa.binary()), pa.field("label", pa.int64(), nullable)]
        )
        table = pa.table(other, kinds)
        pq.write_table(table, tmp_path / f"{i}.parquet")
    assert load(f"{tmp_path}/*.parquet").labels.tolist() == [0, 0, 0, 0]
    kinds = {"int32": pa.array([1, 1], pa.int32()), "no such column": None}
    for found, labels in kinds.items():
        other["label"] = labels
        table = {
            name: column for name, column in other.items() if column is not None
        }
        pq.write_table(pa.table(table), tmp_path / "1.parquet")
        with pytest.raises(ValueError, match=f"1.parquet.*Found: {found} and"):
            load(f"{tmp_path}/*.parquet")


def no_rows(path):
    """Writes columns without a row, as bytes."""
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet as pq

    kinds = [("image", pa.binary()), ("label", pa.int64())]
    pq.write_table(pa.schema(kinds).empty_table(), path)


def test_parquet_without_rows(tmp_path):
    path = str(tmp_path / "x.parquet")
    no_rows(path)
    for read in (load, peek_size):
        with pytest.raises(ValueError, match="x.parquet' holds no image"):
            read(path)


def many(path, count=120, group=5, size=20):
    """Writes photos of 12 numbers, in row groups."""
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet as pq

    photos = [encoded(i % 12, size=(size, size)) for i in range(count)]
    columns = {"image": photos, "label": [i % 12 for i in range(count)]}
    pq.write_table(pa.table(columns), path, row_group_size=group)
    return path


@pytest.fixture
def large(monkeypatch):
    """Makes everything too large for memory; counts the groups read."""
    read = []
    original = RowGroups._read

    def counted(records, group):
        read.append(group)
        return original(records, group)

    monkeypatch.setattr("kerassl.data.parquet.MAX_BYTES", 100)
    monkeypatch.setattr("kerassl.data.row_groups.MIXED_BYTES", 100)
    monkeypatch.setattr("kerassl.data.photo_checks._IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(RowGroups, "_read", counted)
    return read


def test_parquet_larger_than_memory(tmp_path, large):
    data = load(many(tmp_path / "x.parquet"))
    assert isinstance(data.images.records, RowGroups)
    assert data.images.records.mixed == 4
    assert numbers(data.images) == data.labels.tolist()
    assert numbers(data.images[[77, 3]]) == [77 % 12, 3]
    large.clear()
    some = load(tmp_path / "x.parquet", limit=10)
    assert numbers(some.images) == some.labels.tolist()
    assert len(some.labels) == 10 and len(set(large)) == 8
    # Few images take their bytes along, as to a process; many don't.
    few = pickle.loads(pickle.dumps(data.images.records.select([77, 3])))
    large.clear()
    assert [few.source(i).read() for i in range(2)] == [
        encoded(5, size=(20, 20)),
        encoded(3, size=(20, 20)),
    ]
    assert not large
    again = pickle.loads(pickle.dumps(data))
    assert numbers(again.images[:3]) == [0, 1, 2] and large


def test_an_epoch_reads_each_row_group_once(tmp_path, large):
    data = load(many(tmp_path / "x.parquet"))
    records = data.images.records
    orders = []
    for epoch in (0, 1):
        large.clear()
        records._kept._begin()
        batches = data.batches(8, shuffle=True, seed=3, epoch=epoch)
        seen = [batches[i] for i in range(len(batches))]
        assert sorted(large) == list(range(24))
        for images, labels in seen:
            assert numbers(images) == labels.tolist()
        order = batches._epoch_order(epoch)
        assert sorted(order) == list(range(120))
        orders.append(order)
    assert (orders[0] != orders[1]).mean() > 0.9
    # Some groups are mixed at any time.
    spans = [len(set(orders[0][i : i + 8] // 5)) for i in range(20, 100)]
    assert 2 < np.mean(spans) < 8
    # A resumed run has the same batches.
    rest = data.batches(8, shuffle=True, seed=3, epoch=1, start_step=9)
    for (images, labels), (wanted, known) in zip(
        (rest[i] for i in range(3)), seen[9:12]
    ):
        np.testing.assert_array_equal(images, wanted)
        np.testing.assert_array_equal(labels, known)


def test_a_few_images_are_in_few_row_groups(tmp_path, large):
    few = load(many(tmp_path / "x.parquet")).limited(20)
    large.clear()
    assert numbers(few.images) == few.labels.tolist()
    assert len(few.labels) == 20 and len(set(large)) == 8


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize(
    "step, batch_size", [(1, 4), (3, 4), (10, 4), (10, 32)]
)
def test_what_is_read_ahead_is_used(
    tmp_path, large, monkeypatch, shuffled, step, batch_size
):
    """Of all images, and of a third and a tenth of each group."""
    path = many(tmp_path / "x.parquet", count=1200, group=10, size=8)
    size = 120 * path.stat().st_size // 1200
    monkeypatch.setattr("kerassl.data.row_groups.MIXED_BYTES", 3 * size)
    records = load(path).images.records.select(range(0, 1200, step))
    assert 20 < records.mixed < 40 and records.ahead > 4
    # At once, so that the reads are the same each time.
    threads = SimpleNamespace(submit=lambda task, *given: task(*given))
    monkeypatch.setattr(records, "_threads", threads)
    order = np.arange(len(records))
    if shuffled:
        order = records.permutation(np.random.default_rng(0))
    large.clear()
    records._kept._begin()
    ahead = []
    for start in range(0, len(order), batch_size):
        stop = start + batch_size
        records.expect(order[stop:], batch_size)
        ahead.append(len(large))
        for index in order[start:stop]:
            records.source(index)
    assert len(large) < 1.1 * 120 and set(large) == set(range(120))
    # It does read ahead, unless each batch needs many groups anyway.
    assert (ahead[0] > 1) == (step < 10)


def test_orders_of_few_row_groups_are_any(tmp_path, large, monkeypatch):
    monkeypatch.setattr("kerassl.data.row_groups.MIXED_BYTES", 10**6)
    records = load(many(tmp_path / "x.parquet")).images.records
    order = records.permutation(np.random.default_rng(0))
    wanted = np.random.default_rng(0).permutation(120)
    np.testing.assert_array_equal(order, wanted)
