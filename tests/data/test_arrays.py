import io
import os
import sys
import zipfile

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kerassl.data
from kerassl.data import stored
from kerassl.data.arrays import resize_image
from kerassl.data.load import peek_size
from tests.backends import examples, once
from tests.memory import memory_limit

pytestmark = once


def images(n=6, height=8, width=8, channels=3, dtype="uint8"):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (n, height, width, channels)).astype(dtype)


@settings(max_examples=examples(40))
@given(
    shape=st.lists(st.integers(0, 5), min_size=0, max_size=5).map(tuple),
    dtype=st.sampled_from(["uint8", "float32", "float16", "int32", "bool"]),
)
def test_only_image_arrays_pass(shape, dtype):
    good = (
        len(shape) == 4
        and 0 not in shape
        and not (shape[1] in (1, 3) and shape[2] == shape[3] not in (1, 3))
        and dtype in ("uint8", "float32", "float16")
    )
    if good:
        kerassl.data.check_images(np.zeros(shape, dtype))
    else:
        with pytest.raises(ValueError, match="`photos`"):
            kerassl.data.check_images(np.zeros(shape, dtype), "photos")


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda x: x / 255, r"scaled to \[0, 1\].*\[0, 255\]"),
        (lambda x: x / 127.5 - 1, r"scaled to \[-1, 1\]"),
        (lambda x: x - 10, r"values in \[-10, "),
        (lambda x: x * 2, r"\[0, 255\]"),
        (lambda x: np.where(x > 250, np.nan, x), "NaN"),
        (lambda x: np.where(x > 250, np.inf, x), "infinite"),
        (lambda x: np.moveaxis(x, -1, 1), "moveaxis"),
        (lambda x: x[0], r"images\[None\]"),
        (lambda x: x.astype("int64"), "int64"),
        (lambda x: [[1, 2]], "list"),
    ],
)
def test_error_names_what_is_wrong(change, message):
    with pytest.raises(ValueError, match=message):
        kerassl.data.check_images(change(images(dtype="float32")))


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
@pytest.mark.parametrize("channels", [1, 3])
def test_resize_keeps_dtype_and_cuts_the_center(dtype, channels):
    wide = np.zeros((10, 30, channels), dtype)
    wide[:, 8:22] = 200  # The filter reaches over the cut.
    small = resize_image(wide, (5, 5))
    assert small.dtype == dtype
    assert small.shape == (5, 5, channels)
    np.testing.assert_array_equal(small, 200)


def test_npz_by_split(tmp_path):
    path = tmp_path / "set.npz"
    x, y = images(), np.arange(6)[:, None]
    np.savez(path, x_train=x, y_train=y, x_test=x[:2], y_test=y[:2])
    train = kerassl.data.load(path)
    np.testing.assert_array_equal(train.images, x)
    np.testing.assert_array_equal(train.labels, np.arange(6))
    assert train.labels.dtype == "int64"
    assert len(kerassl.data.load(path, "test").images) == 2
    with pytest.raises(ValueError, match="dev.*x_test"):
        kerassl.data.load(path, "dev")
    some = kerassl.data.load(path, limit=4, image_size=(4, 6))
    assert some.images.shape == (4, 4, 6, 3)
    assert len(some.labels) == 4


def test_npz_without_split_and_gray(tmp_path):
    path = tmp_path / "gray.npz"
    np.savez(path, images=images()[..., 0])
    loaded, labels = kerassl.data.load(str(path))
    assert loaded.shape == (6, 8, 8, 1)
    assert labels is None
    with pytest.raises(ValueError, match="no images for split='test'"):
        kerassl.data.load(path, "test")


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"images": images(), "labels": np.arange(5)}, "5 labels for 6"),
        ({"images": images(), "labels": np.eye(6)}, r"\(6, 6\)"),
        ({"pictures": images()}, "pictures"),
        ({"images": images() / 255}, "scaled"),
        ({"images": np.array([None, "code"], object)}, "pickle"),
        ({"images": np.array(3)}, r"shape=\(\)"),
    ],
)
def test_bad_npz(tmp_path, arrays, message):
    path = tmp_path / "bad.npz"
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=message):
        kerassl.data.load(path)


@pytest.mark.parametrize("suffix", [".npz", ".npy"])
def test_damaged_and_missing_files(tmp_path, suffix):
    path = tmp_path / f"bad{suffix}"
    with pytest.raises(FileNotFoundError, match="bad"):
        kerassl.data.load(path)
    for content in (b"", b"not an array", b"PK\x03\x04 cut"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="bad"):
            kerassl.data.load(path)


def test_large_npy_is_memory_mapped(tmp_path, monkeypatch):
    monkeypatch.setattr("kerassl.data.stored.MEMORY_MAP_BYTES", 100)
    path = tmp_path / "x.npy"
    np.save(path, images())
    data = kerassl.data.load(path)
    assert isinstance(data.images, np.memmap)
    (batch,) = data.batches(4, shuffle=True)[0]
    assert type(batch) is np.ndarray
    assert batch.shape == (4, 8, 8, 3)
    with pytest.raises(ValueError, match="'train'"):
        kerassl.data.load(path, "test")


@pytest.mark.parametrize("order", ["C", "F"])
def test_large_arrays_of_npz_are_memory_mapped(tmp_path, monkeypatch, order):
    monkeypatch.setattr("kerassl.data.stored.MEMORY_MAP_BYTES", 100)
    monkeypatch.setattr("kerassl.data.arrays.MAX_BYTES", 100)
    pixels = np.asarray(images(), order=order)
    labels = np.arange(len(pixels))
    np.savez(tmp_path / "x.npz", labels=labels, images=pixels)
    data = kerassl.data.load(tmp_path / "x.npz")
    # In Fortran order it must be copied, once it is used.
    assert isinstance(data.images, np.memmap) or order == "F"
    np.testing.assert_array_equal(data.images, pixels)
    np.testing.assert_array_equal(data.labels, labels)
    np.savez_compressed(tmp_path / "y.npz", images=pixels)
    with pytest.raises(ValueError, match="need .* of memory"):
        kerassl.data.load(tmp_path / "y.npz")


@pytest.mark.parametrize("chunks", [None, True])
def test_hdf5(tmp_path, monkeypatch, chunks):
    monkeypatch.setattr("kerassl.data.stored.MEMORY_MAP_BYTES", 100)
    pixels = images()
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x_test", data=pixels, chunks=chunks)
        file["y_test"] = np.arange(len(pixels))
        file.create_group("more")["x_train"] = pixels
    assert peek_size(path) == (8, False)
    data = kerassl.data.load(path, "test")
    assert isinstance(data.images, np.memmap) == (chunks is None)
    np.testing.assert_array_equal(data.images, pixels)
    np.testing.assert_array_equal(data.labels, np.arange(len(pixels)))
    few = kerassl.data.load(path, "test", limit=2)
    np.testing.assert_array_equal(few.images, pixels[:2])
    with pytest.raises(ValueError, match="x_test"):
        kerassl.data.load(path)
    path.write_bytes(b"no HDF5")
    with pytest.raises(ValueError, match=r"x.h5' is not a readable .h5 file"):
        kerassl.data.load(path, "test")


@pytest.mark.parametrize("version", [2, 3])
def test_zarr(tmp_path, version):
    zarr = pytest.importorskip("zarr")
    pixels = images()
    path = tmp_path / "x.zarr"
    group = zarr.open_group(path, mode="w", zarr_format=version)
    labels = np.arange(len(pixels))
    for name, values in (("x_test", pixels), ("y_test", labels)):
        made = group.create_array(
            name,
            shape=values.shape,
            chunks=(2, *values.shape[1:]),
            dtype=values.dtype,
        )
        made[:] = values
    assert peek_size(path) == (8, False)
    data = kerassl.data.load(path, "test")
    np.testing.assert_array_equal(data.images, pixels)
    np.testing.assert_array_equal(data.labels, labels)
    # A chunk that isn't needed isn't read.
    place = "c/2/0/0/0" if version == 3 else "2.0.0.0"
    (path / "x_test" / place).write_bytes(b"broken")
    few = kerassl.data.load(path, "test", limit=2)
    np.testing.assert_array_equal(few.images, pixels[:2])
    with pytest.raises(ValueError, match=r"x.zarr' is not a readable .zarr"):
        kerassl.data.load(path, "test")
    with pytest.raises(ValueError, match="x_test"):
        kerassl.data.load(path)


def test_zarr_of_one_array(tmp_path, monkeypatch):
    zarr = pytest.importorskip("zarr")
    pixels = images().astype("uint16")
    path = tmp_path / "x.zarr"
    zarr.save_array(path, pixels)
    data = kerassl.data.load(f"{path}/", value_range=(0, 1000))
    np.testing.assert_allclose(data.images, pixels * 0.255, atol=1e-3)
    (tmp_path / "y.zarr").mkdir()
    with pytest.raises(ValueError, match="y.zarr' is not a readable .zarr"):
        kerassl.data.load(tmp_path / "y.zarr")
    with pytest.raises(FileNotFoundError, match="z.zarr"):
        kerassl.data.load(tmp_path / "z.zarr")
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(ValueError, match=r"needs zarr: .*scientific"):
        kerassl.data.load(path)


@pytest.fixture
def read_bytes(monkeypatch):
    """A list of how many bytes were asked of files at a time."""
    asked = []
    fill = stored._fill

    def note(file, buffer):
        asked.append(len(buffer))
        fill(file, buffer)

    monkeypatch.setattr(stored, "_fill", note)
    return asked


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_limit_reads_no_more(tmp_path, read_bytes, save, order):
    path = tmp_path / "x.npz"
    x, y = images(100), np.arange(100)
    save(path, x_train=np.asarray(x, order=order), y_train=y, other=x)
    data = kerassl.data.load(path, limit=3)
    np.testing.assert_array_equal(data.images, x[:3])
    np.testing.assert_array_equal(data.labels, [0, 1, 2])
    # Rows aren't side by side in Fortran's order.
    assert read_bytes == [x[: 3 if order == "C" else 100].nbytes, 3 * 8]
    assert data.images.flags.c_contiguous and data.images.flags.writeable
    assert len(kerassl.data.load(path, limit=200).images) == 100


def test_a_limit_of_a_large_file_takes_no_memory(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as z:
        with z.open("images.npy", "w", force_zip64=True) as file:
            header = {"shape": (600, 224, 224, 3), "fortran_order": False}
            np.lib.format.write_array_header_1_0(
                file, {**header, "descr": "|u1"}
            )
            for _ in range(6):
                file.write(bytes(100 * 224 * 224 * 3))
    with memory_limit(50e6):
        data = kerassl.data.load(tmp_path / "x.npz", limit=10)
    assert data.images.shape == (10, 224, 224, 3)


def test_a_limit_of_npy(tmp_path, read_bytes):
    path = tmp_path / "x.npy"
    np.save(path, images(100))
    data = kerassl.data.load(path, limit=5)
    np.testing.assert_array_equal(data.images, images(100)[:5])
    assert read_bytes == [5 * 8 * 8 * 3]


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_wrong_headers_are_refused_before_pixels_are_read(
    tmp_path, read_bytes, suffix
):
    path = tmp_path / f"x.{suffix}"

    def write(shape, descr="|u1"):
        header = {"shape": shape, "fortran_order": False, "descr": descr}
        file = io.BytesIO()
        np.lib.format.write_array_header_1_0(file, header)
        file.write(bytes(100))
        content = file.getvalue()
        if suffix == "npy":
            path.write_bytes(content)
        else:
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("images.npy", content)

    for shape, descr, message in (
        ((10**6, 10**4, 10**4, 3), "|u1", "ends early"),
        ((3, 5, 5, 3), "|u1", "ends early"),
        ((25,), "|u1", "must have the shape"),
        ((1, 2, 2, 17), "|u1", "1 to 16 channels"),
        ((1, 5, 5, 1), "<i4", "int32 pixels, whose range isn't known"),
        ((0, 5, 5, 3), "|u1", "empty"),
    ):
        write(shape, descr)
        with pytest.raises(ValueError, match=message):
            kerassl.data.load(path, limit=1)
    assert not read_bytes


def test_too_many_pixels_for_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("kerassl.data.arrays.MAX_BYTES", 1000)
    np.savez(tmp_path / "x.npz", images=images())
    with pytest.raises(ValueError, match="GiB are allowed"):
        kerassl.data.load(tmp_path / "x.npz")
    assert len(kerassl.data.load(tmp_path / "x.npz", limit=5).images) == 5


@pytest.mark.parametrize("larger", [{"image_size": 28}, {"channels": 3}])
def test_images_that_become_too_large_for_memory(tmp_path, monkeypatch, larger):
    monkeypatch.setattr("kerassl.data.arrays.MAX_BYTES", 1000)
    np.savez(tmp_path / "x.npz", images=images(channels=1))
    assert len(kerassl.data.load(tmp_path / "x.npz").images) == 6
    with pytest.raises(ValueError, match="x.npz' need .* GiB are allowed"):
        kerassl.data.load(tmp_path / "x.npz", **larger)


def test_foreign_byte_order_becomes_native(tmp_path):
    pixels = images().astype(">f4")
    np.savez(
        tmp_path / "x.npz", images=pixels, labels=np.arange(6, dtype=">i4")
    )
    data = kerassl.data.load(tmp_path / "x.npz")
    assert data.images.dtype.isnative and data.images.dtype == "float32"
    np.testing.assert_array_equal(data.images, pixels)
    np.testing.assert_array_equal(data.labels, np.arange(6))


def test_splits_of_npz_by_other_names(tmp_path):
    path = tmp_path / "medical.npz"
    np.savez(path, train_images=images(), val_images=images(2))
    for split in ("val", "validation"):
        assert len(kerassl.data.load(path, split).images) == 2


def test_pipes_named_like_arrays(tmp_path):
    for name in ("x.npy", "x.npz"):
        os.mkfifo(tmp_path / name)
        for read in (kerassl.data.load, peek_size):
            with pytest.raises(FileNotFoundError, match="no file"):
                read(str(tmp_path / name))
