import logging
import os

import numpy as np
import pytest
from PIL import Image

import kerassl.data
from kerassl.data import photo_checks
from kerassl.data.decode import decode_image
from kerassl.data.load import peek_size
from tests.backends import once

pytestmark = once

RED, BLUE = (255, 0, 0), (0, 0, 255)


def save(path, color=RED, size=(20, 20), **kwargs):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path, **kwargs)
    return path


@pytest.fixture
def streaming(monkeypatch):
    monkeypatch.setattr("kerassl.data.photo_checks._IN_MEMORY_BYTES", 0)


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
        monkeypatch.setattr("kerassl.data.photo_checks._IN_MEMORY_BYTES", 0)
    data = load(classes)
    assert data.images.in_memory != stream
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


def test_images_in_the_folder_itself_are_unlabeled(tmp_path):
    save(tmp_path / "x.jpg")
    save(tmp_path / "sub" / "y.webp")
    save(tmp_path / ".hidden.png")
    (tmp_path / "notes.txt").write_text("no image")
    data = load(tmp_path)
    assert data.images.shape == (2, 8, 8, 3)
    assert data.labels is None and data.class_names is None
    # For the run's files and its report.
    assert len(data.notes) == 1 and "1 .txt" in data.notes[0]


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
    for path in (tmp_path / "x.jpg", tmp_path / "x.tif"):
        Image.fromarray(pixels).save(path, exif=exif, quality=95)
        turned = decode_image(path, (20, 20))
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
    # The center half of the ramp.
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
        monkeypatch.setattr("kerassl.data.photo_checks._IN_MEMORY_BYTES", 0)
    spoil(classes)
    with pytest.raises(ValueError, match=r"of 20 images.*4\.png.*7\.png"):
        load(classes, max_unreadable=0.05)


def test_no_class_is_lost_with_images_without_a_label(tmp_path, caplog):
    for i in range(4):
        save(tmp_path / f"{i}.png")
    (tmp_path / "1.png").write_bytes(b"")
    path = tmp_path / "some.csv"
    path.write_text("path,label\n0.png,7\n1.png,-1\n2.png,7\n3.png,8\n")
    found = kerassl.data.load(path, image_size=8, max_unreadable=0.5)
    assert found.labels.tolist() == [0, 0, 1]
    assert "1 of 4" in caplog.text and "no image is left" not in caplog.text


def test_all_unreadable_is_an_error_at_any_tolerance(tmp_path):
    (tmp_path / "x.png").write_bytes(b"")
    with pytest.raises(ValueError, match="1 of 1") as error:
        load(tmp_path, max_unreadable=1)
    # No share to tolerate would help.
    assert "max_unreadable" not in str(error.value)


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
    assert caplog.text.count("replaces it") == 2  # Each is named once.
    for name in ("1.png", "5.PNG"):
        assert name in caplog.text


def test_a_part_vanishes(tmp_path, streaming, caplog):
    """Few lines tell, and no image is tried again and again."""
    for i in range(60):
        save(tmp_path / f"{i:02}.png")
    data = load(tmp_path)
    for i in range(40):
        (tmp_path / f"{i:02}.png").unlink()
    opened = []
    source = type(data.images.records).source

    class Counted(type(data.images.records)):
        def source(self, index):
            opened.append(index)
            return source(self, index)

    data.images.records.__class__ = Counted
    for _ in range(2):
        _, used = data.images.read(range(60))
        assert used.tolist() == [40] * 40 + list(range(40, 60))
    assert len(opened) <= 2 * (60 + 40) + 40
    assert len(caplog.messages) == 21
    assert "So far these are 32 images." in caplog.messages[-1]


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
    monkeypatch.setattr("kerassl.data.photo_checks._CHECKED_FILES", 10)
    data = load(classes)
    assert photo_checks.check_headers(data.images)[:2] == (10, {})


def layout(folder, *names):
    for name in names:
        save(folder / name)
    return folder


@pytest.mark.parametrize(
    "train, test, validation",
    [
        ("Train", "Test", "Val"),
        ("TRAINING", "Testing", "VALID"),
        ("training", "test", "Validation"),
    ],
)
def test_splits_in_any_case(tmp_path, train, test, validation):
    layout(tmp_path, f"{train}/a/0.png", f"{train}/b/0.png", f"{test}/b/0.png")
    save(tmp_path / validation / "a" / "0.png")
    for names, labels in (
        (("train", "training", "Train"), [0, 1]),
        (("test", "TEST", "testing"), [1]),
        (("validation", "val", "Valid"), [0]),
    ):
        for name in names:
            data = load(tmp_path, split=name)
            assert data.labels.tolist() == labels
            assert data.class_names == ("a", "b")
    with pytest.raises(ValueError, match=f"'dev'.*'{train}'"):
        load(tmp_path, split="dev")


@pytest.mark.parametrize(
    "names",
    [
        ("train/0.png", "test/0.png", "masks/0.png"),
        ("train/a/0.png", "masks/a/0.png"),
        ("Train/0.png", "train/1.png", "plane/0.png"),
        ("a/0.png", "b/0.png", "test/0.png"),
        ("train/a/0.png", "test/a/0.png", "sample.png"),
        ("train/0.png", "test/0.png", "sample.png"),
    ],
)
@pytest.mark.parametrize("split", ["train", "test"])
def test_splits_beside_other_images_are_refused(tmp_path, names, split):
    layout(tmp_path, *names)
    with pytest.raises(ValueError, match="named like splits") as error:
        load(tmp_path, split=split)
    beside = names[-1] if split == "train" else names[0]
    assert beside.split("/")[0] in str(error.value)


def test_two_folders_of_one_split_are_refused(tmp_path):
    layout(tmp_path, "val/a/0.png", "Validation/a/0.png", "train/a/0.png")
    with pytest.raises(ValueError, match=r"'Validation', 'val'"):
        load(tmp_path, split="validation")
    assert len(load(tmp_path).images) == 1


def test_a_class_called_train_is_told_of(tmp_path, caplog):
    layout(tmp_path, "train/0.png", "plane/0.png")
    assert load(tmp_path).class_names == ("plane", "train")
    assert "'train' counts as a class" in caplog.text


def test_a_test_split_may_lack_labels(tmp_path):
    layout(tmp_path, "train/a/0.png", "train/b/0.png", "test/0.png")
    data = load(tmp_path)
    assert data.labels.tolist() == [0, 1] and data.class_names == ("a", "b")
    assert load(tmp_path, split="test").labels is None


def test_a_loose_image_that_costs_the_labels_is_told_of(tmp_path, caplog):
    layout(tmp_path, "a/0.png", "b/0.png", "preview.png")
    assert load(tmp_path).labels is None
    assert "'preview.png' is directly in it" in caplog.text


def test_other_files_are_counted_by_suffix(classes, caplog):
    for name in ("a/1.txt", "b/2.TXT", "c/photo.heics", "b/README", ".hidden"):
        (classes / name).parent.mkdir(exist_ok=True)
        (classes / name).write_text("text")
    (classes / "d").mkdir()
    data = load(classes)
    assert data.class_names == ("a", "b") and len(data.images) == 20
    assert caplog.text.count("WARNING") == 2
    assert "(4 in all)" in caplog.text
    for part in ("2 .txt", "1 .heics", "1 without a suffix"):
        assert part in caplog.text
    assert ": 'c', 'd'" in caplog.text


def test_a_class_that_only_another_split_has_is_named(tmp_path, caplog):
    layout(tmp_path, "train/a/0.png", "train/b/0.png", "test/a/0.png")
    (tmp_path / "test" / "b").mkdir()
    (tmp_path / "test" / "b" / "0.heics").write_text("text")
    data = load(tmp_path, split="test")
    assert data.class_names == ("a", "b") and data.labels.tolist() == [0]
    assert "Classes without images" in caplog.text and "'b'" in caplog.text


def test_nothing_is_said_of_a_clean_folder(classes, caplog):
    load(classes)
    assert not caplog.text


def test_a_folder_of_other_files_says_what_it_holds(tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.heics").write_text("text")
    with pytest.raises(ValueError, match="no image.*3 .heics"):
        load(tmp_path)


@pytest.mark.parametrize("stream", [False, True])
def test_a_class_of_unreadable_images_is_named(
    classes, monkeypatch, caplog, stream
):
    if stream:
        monkeypatch.setattr("kerassl.data.photo_checks._IN_MEMORY_BYTES", 0)
    for path in (classes / "b").rglob("*.PNG"):
        path.write_bytes(b"")
    data = load(classes, max_unreadable=0.5)
    assert len(data.images) == 10
    assert "no image is left of the class 'b'" in caplog.text
    with pytest.raises(ValueError, match="class 'b'.*--max-unreadable"):
        load(classes)


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_reduced_is_said_once(classes, monkeypatch, caplog, stream):
    if stream:
        monkeypatch.setattr("kerassl.data.photo_checks._IN_MEMORY_BYTES", 0)
    for i in range(2):
        gray = Image.fromarray(np.full((20, 20), i, "uint16"))
        gray.save(classes / "a" / f"gray{i}.png")
    Image.new("RGBA", (9, 9)).save(classes / "a" / "clear.png")
    load(classes)
    assert caplog.text.count("WARNING") == 1
    assert "2 with 16 bits a channel" in caplog.text
    assert "1 with transparency" in caplog.text


@pytest.mark.parametrize("stream", [False, True])
def test_pipes_and_bombs_are_unreadable(classes, monkeypatch, caplog, stream):
    if stream:
        monkeypatch.setattr("kerassl.data.photo_checks._IN_MEMORY_BYTES", 0)
    monkeypatch.setattr("kerassl.data.decode.MAX_PIXELS", 10_000)
    os.mkfifo(classes / "a" / "pipe.png")
    os.symlink("gone.png", classes / "a" / "link.png")
    save(classes / "a" / "large.png", size=(101, 100))
    data = load(classes, max_unreadable=0.2)
    assert len(data.images) == 20
    for part in ("a named pipe", "No such file", "10,100 pixels", "3 of 23"):
        assert part in caplog.text
    assert peek_size(f"folder:{classes}") == (20, True)


def test_folders_that_cannot_be_listed(classes, monkeypatch, caplog):
    save(classes / "c" / "0.png")
    scandir = os.scandir

    def closed(path):
        if str(path).endswith("c"):
            raise error
        return scandir(path)

    monkeypatch.setattr("kerassl.data.files.os.scandir", closed)
    error = PermissionError(13, "Permission denied")
    data = load(classes)
    assert data.class_names == ("a", "b")
    assert "c' (Permission denied)" in caplog.text
    error = OSError(5, "Input/output error")  # That might pass.
    with pytest.raises(ValueError, match="can't be listed.*Input/output"):
        load(classes)


def test_odd_names_are_written_as_text(classes, caplog):
    name = b"new\nline\xff.png".decode("utf-8", "surrogateescape")
    (classes / "a" / name).write_bytes(b"")
    assert len(load(classes, max_unreadable=0.1).images) == 20
    caplog.text.encode()
    assert "new\\nline" in caplog.text


@pytest.mark.parametrize("stream", [False, True])
def test_paths_stay_with_the_images(classes, monkeypatch, stream):
    if stream:
        monkeypatch.setattr("kerassl.data.photo_checks._IN_MEMORY_BYTES", 0)
    (classes / "a" / "4.png").write_bytes(b"")
    for i in range(10):
        save(classes / "a" / f"{i}.png", (20 * i, 0, 9)) if i != 4 else None

    def check(data, count):
        assert len(data.paths) == len(data.images) == count
        for image, path, label in zip(
            data.images[:], data.paths, data.labels, strict=True
        ):
            np.testing.assert_array_equal(image, decode_image(path, (8, 8)))
            assert path.relative_to(classes).parts[0] == "ab"[label]

    data = load(classes, max_unreadable=0.1)
    check(data, 19)
    check(load(classes, limit=7, max_unreadable=0.2), 7)
    check(data.take(3), 3)
    check(data.select(np.array([5, 12, 0, 5])), 4)
    check(data.select(data.labels == 1), 10)
    check(data.select(slice(None, None, -2)), 10)
    train, test = data.split(0.3, seed=1)
    check(train, 13)
    check(test, 6)
    assert not set(train.paths) & set(test.paths)


def test_share_of_unreadable_images_is_checked(classes):
    for share in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match="max_unreadable"):
            load(classes, max_unreadable=share)
