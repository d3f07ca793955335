import logging
import os

import numpy as np
import pytest
from PIL import Image

import kerassl.data
from kerassl.data.folder import ImageFolder, decode_image

RED, BLUE = (255, 0, 0), (0, 0, 255)


def save(path, color=RED, size=(20, 20), **kwargs):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path, **kwargs)
    return path


@pytest.fixture
def streaming(monkeypatch):
    monkeypatch.setattr("kerassl.data.folder._IN_MEMORY_BYTES", 0)


@pytest.fixture
def classes(tmp_path):
    """Ten red images in `a`, ten blue ones in `b`."""
    for i in range(10):
        save(tmp_path / "a" / f"{i}.png", RED)
        save(tmp_path / "b" / "deep" / f"{i}.PNG", BLUE)
    return tmp_path


def load(path, **kwargs):
    return kerassl.data.load(f"folder:{path}", image_size=8, **kwargs)


def colors(images):
    """0 for red, 1 for blue."""
    return np.asarray(images)[:, 4, 4].argmax(-1) // 2


@pytest.mark.parametrize("stream", [False, True])
def test_labels_come_from_first_level(classes, monkeypatch, stream):
    if stream:
        monkeypatch.setattr("kerassl.data.folder._IN_MEMORY_BYTES", 0)
    data = load(classes)
    assert isinstance(data.images, ImageFolder) == stream
    assert data.class_names == ("a", "b")
    assert data.images.shape == (20, 8, 8, 3)
    assert data.images.dtype == "uint8"
    np.testing.assert_array_equal(colors(data.images[:]), data.labels)
    assert data.images[3].shape == (8, 8, 3)
    assert data.images[-2:].shape == (2, 8, 8, 3)
    taken = data.take(12)
    assert len(taken.images) == len(taken.labels) == 12
    # A part of a folder keeps its classes.
    few = load(classes, limit=4)
    np.testing.assert_array_equal(few.labels, [0, 0, 1, 1])
    np.testing.assert_array_equal(colors(few.images[:]), few.labels)


def test_plain_path_and_default_size(classes):
    data = kerassl.data.load(classes)
    assert data.image_shape == (224, 224, 3)


def test_images_in_the_folder_itself_are_unlabelled(tmp_path):
    save(tmp_path / "x.jpg")
    save(tmp_path / "sub" / "y.webp")
    save(tmp_path / ".hidden.png")
    (tmp_path / "notes.txt").write_text("no image")
    data = load(tmp_path)
    assert data.images.shape == (2, 8, 8, 3)
    assert data.labels is None and data.class_names is None


def test_splits_share_their_labels(tmp_path):
    for name in ("train/a", "train/b", "train/c", "val/c"):
        save(tmp_path / name / "0.png")
    np.testing.assert_array_equal(load(tmp_path).labels, [0, 1, 2])
    for split in ("val", "validation"):
        data = load(tmp_path, split=split)
        np.testing.assert_array_equal(data.labels, [2])
        assert data.class_names == ("a", "b", "c")
    with pytest.raises(ValueError, match=r"'test'.*'train', 'val'"):
        load(tmp_path, split="test")


def test_a_class_may_be_called_train(tmp_path):
    save(tmp_path / "train" / "0.png")
    save(tmp_path / "plane" / "0.png")
    assert load(tmp_path).class_names == ("plane", "train")
    with pytest.raises(ValueError, match="isn't divided"):
        load(tmp_path, split="test")


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no image"):
        load(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.txt").write_text("text")
    with pytest.raises(ValueError, match="jpg"):
        load(tmp_path)


def test_symlink_loops_end(classes):
    os.symlink(classes, classes / "a" / "loop", target_is_directory=True)
    os.symlink(classes / "b", classes / "c", target_is_directory=True)
    data = load(classes)
    # A link that isn't a loop is followed.
    np.testing.assert_array_equal(np.bincount(data.labels), [10, 10, 10])


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "I;16", "CMYK"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    if mode == "I;16":
        gray = Image.fromarray(np.full((20, 30), 200 * 257, "uint16"))
    else:
        gray = Image.new("RGB", (30, 20), (200, 200, 200)).convert(mode)
    path = tmp_path / ("x.jpg" if mode == "CMYK" else "x.png")
    gray.save(path)
    image = decode_image(path, (8, 10))
    assert image.shape == (8, 10, 3) and image.dtype == "uint8"
    assert image.std() < 60 if mode == "1" else image.std() < 4  # Dithered.
    np.testing.assert_allclose(image.mean(), 200, atol=8)


def test_exif_orientation_and_first_frame(tmp_path):
    pixels = np.zeros((20, 20, 3), "uint8")
    pixels[:10] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # To be turned a quarter clockwise.
    Image.fromarray(pixels).save(tmp_path / "x.jpg", exif=exif, quality=95)
    turned = decode_image(tmp_path / "x.jpg", (20, 20))
    assert turned[:, :8].max() < 20 and turned[:, 12:].min() > 235
    frames = [Image.new("RGB", (20, 20), c) for c in (RED, BLUE)]
    frames[0].save(
        tmp_path / "x.webp",
        save_all=True,
        append_images=frames[1:],
        lossless=True,
    )
    first = decode_image(tmp_path / "x.webp", (8, 8))
    np.testing.assert_array_equal(first[4, 4], RED)


def test_large_photo_is_shrunk_right(tmp_path):
    ramp = np.tile(np.linspace(0, 255, 1024).astype("uint8"), (512, 1))
    Image.fromarray(ramp).convert("RGB").save(tmp_path / "x.jpg", quality=95)
    image = decode_image(tmp_path / "x.jpg", (32, 32))
    # The centre half of the ramp.
    np.testing.assert_allclose(
        image[16, :, 0], np.linspace(64, 191, 32), atol=4
    )


def spoil(folder):
    """Three kinds of unreadable files, in class `a`."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), "uint8")
    Image.fromarray(noise).save(folder / "a" / "1.png")
    whole = (folder / "a" / "1.png").read_bytes()
    (folder / "a" / "1.png").write_bytes(whole[: len(whole) // 2])
    (folder / "a" / "4.png").write_bytes(b"")
    (folder / "a" / "7.png").write_text("not an image")


def test_unreadable_are_skipped_and_named(classes, caplog):
    spoil(classes)
    with caplog.at_level(logging.WARNING, "kerassl"):
        data = load(classes, max_unreadable=0.2)
    assert len(data.images) == len(data.labels) == 17
    np.testing.assert_array_equal(colors(data.images), data.labels)
    assert "3 of 20" in caplog.text
    for name in ("1.png", "4.png", "7.png"):
        assert name in caplog.text


@pytest.mark.parametrize("stream", [False, True])
def test_too_many_unreadable(classes, monkeypatch, stream):
    if stream:
        monkeypatch.setattr("kerassl.data.folder._IN_MEMORY_BYTES", 0)
    spoil(classes)
    with pytest.raises(ValueError, match=r"of 20 images.*4\.png.*7\.png"):
        load(classes, max_unreadable=0.05)


def test_all_unreadable_is_an_error_at_any_tolerance(tmp_path):
    (tmp_path / "x.png").write_bytes(b"")
    with pytest.raises(ValueError, match="1 of 1"):
        load(tmp_path, max_unreadable=1)


def test_decompression_bomb_is_unreadable(classes, monkeypatch, caplog):
    save(classes / "a" / "big.png", size=(300, 300))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with caplog.at_level(logging.WARNING, "kerassl"):
        assert len(load(classes, max_unreadable=0.1).images) == 20
    assert "DecompressionBomb" in caplog.text


def test_streaming_replaces_what_breaks_later(classes, streaming, caplog):
    spoil(classes)
    data = load(classes, max_unreadable=0.2)
    # The headers show two of the three; then one vanishes.
    assert len(data.images) == 18
    (classes / "b" / "deep" / "5.PNG").unlink()
    with caplog.at_level(logging.WARNING, "kerassl"):
        for _ in range(2):
            images = data.images[:]
            assert images.shape == (18, 8, 8, 3)
            np.testing.assert_array_equal(colors(images), data.labels)
    assert caplog.text.count("stands in") == 2  # Each is named once.
    for name in ("1.png", "5.PNG"):
        assert name in caplog.text


def test_batch_has_the_label_of_the_stand_in(tmp_path, streaming):
    save(tmp_path / "a" / "0.png", RED)
    for i in range(5):
        save(tmp_path / "b" / f"{i}.png", BLUE)
    data = load(tmp_path)
    (tmp_path / "a" / "0.png").unlink()  # The only one of its class.
    images, labels = data.batches(6)[0]
    np.testing.assert_array_equal(labels, 1)
    np.testing.assert_array_equal(colors(images), labels)


def test_all_images_vanish(tmp_path, streaming):
    save(tmp_path / "a" / "0.png")
    data = load(tmp_path)
    (tmp_path / "a" / "0.png").unlink()
    with pytest.raises(ValueError, match="None of the 1 images"):
        data.images[0]


def test_headers_of_a_sample(classes, streaming, monkeypatch):
    monkeypatch.setattr("kerassl.data.folder._CHECKED_FILES", 10)
    data = load(classes)
    assert data.images.check_headers() == (10, {})
