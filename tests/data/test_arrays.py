import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kerassl.data
from kerassl.data.arrays import resize_image


def images(n=6, height=8, width=8, channels=3, dtype="uint8"):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (n, height, width, channels)).astype(dtype)


@settings(max_examples=40, deadline=None)
@given(
    shape=st.lists(st.integers(0, 5), min_size=0, max_size=5).map(tuple),
    dtype=st.sampled_from(["uint8", "float32", "float16", "int32", "bool"]),
)
def test_only_image_arrays_pass(shape, dtype):
    good = (
        len(shape) == 4
        and 0 not in shape
        and shape[-1] in (1, 3)
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


def test_black_float_images_and_tensors_pass():
    kerassl.data.check_images(np.zeros((2, 8, 8, 1), "float32"))
    kerassl.data.check_images(keras.ops.convert_to_tensor(images()))
    kerassl.data.check_images(
        keras.ops.convert_to_tensor(images(dtype="float32"))
    )
    with pytest.raises(ValueError, match="scaled"):
        kerassl.data.check_images(
            keras.ops.convert_to_tensor(images(dtype="float32") / 255)
        )


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
@pytest.mark.parametrize("channels", [1, 3])
def test_resize_keeps_dtype_and_cuts_the_centre(dtype, channels):
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
    monkeypatch.setattr("kerassl.data.stored._MEMORY_MAP_BYTES", 100)
    path = tmp_path / "x.npy"
    np.save(path, images())
    data = kerassl.data.load(path)
    assert isinstance(data.images, np.memmap)
    (batch,) = data.batches(4, shuffle=True)[0]
    assert type(batch) is np.ndarray
    assert batch.shape == (4, 8, 8, 3)
    with pytest.raises(ValueError, match="'train'"):
        kerassl.data.load(path, "test")
