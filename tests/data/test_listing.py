"""Listings of folders that are remembered in a file."""

import os
import time

import numpy as np
import pytest
from PIL import Image

import kerassl
from kerassl.data import listing
from kerassl.data.listing import list_images
from tests.backends import once

pytestmark = once


@pytest.fixture(autouse=True)
def settled(monkeypatch):
    """Remembers folders that were changed just now."""
    monkeypatch.setattr(listing, "_SETTLED_NS", 0)


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "photos"
    for i in range(6):
        path = root / "ab"[i % 2] / "inner" / f"{i}.png"
        path.parent.mkdir(exist_ok=True, parents=True)
        Image.new("RGB", (8, 8), (i, i, i)).save(path)
    (root / "a" / "notes.txt").write_text("")
    (root / "a" / "nul\udcff.png").write_bytes(b"")  # Not UTF-8.
    return root


@pytest.fixture
def file(folder, tmp_path):
    file = tmp_path / "images.npz"
    list_images(folder).save(file)
    assert file.exists()
    # The kernel's clock for files goes on every few milliseconds.
    time.sleep(0.05)
    return file


@pytest.fixture
def unlisted(monkeypatch):
    """Says whether a folder is listed again."""
    calls = []

    def find(*args):
        calls.append(args)
        return real(*args)

    real = listing.find_images
    monkeypatch.setattr(listing, "find_images", find)

    def unlisted():
        found, calls[:] = not calls, []
        return found

    return unlisted


def test_a_remembered_listing_is_the_same(folder, file, unlisted):
    again = list_images(folder, file)
    assert unlisted()
    now = list_images(folder)
    assert not unlisted()
    assert (again.root, again.names) == (now.root, now.names)
    assert again.skipped == now.skipped
    assert again.skipped.suffixes == {".txt": 1}
    np.testing.assert_array_equal(again.stamps, now.stamps)
    # The content of a file is nobody's business here.
    (folder / "a" / "inner" / "0.png").write_bytes(b"other")
    list_images(folder, file)
    assert unlisted()


def test_a_listing_whose_file_was_removed_is_written_again(folder, file):
    found = list_images(folder, file)
    file.unlink()
    found.save(file)
    assert list_images(folder, file).path == str(file)


def other_folder(folder):
    """Another folder of the same name takes the place of one."""
    os.rename(folder / "b", folder.parent / "old")
    (folder / "b" / "inner").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(folder / "b" / "inner" / "9.png")


@pytest.mark.parametrize(
    "change",
    [
        lambda f: (f / "a" / "inner" / "2.png").unlink(),
        lambda f: (f / "a" / "inner" / "8.png").write_bytes(b""),
        lambda f: (f / "8.png").write_bytes(b""),
        lambda f: os.rename(f / "a/inner/2.png", f / "a/inner/3.png"),
        lambda f: os.rename(f / "a", f / "c"),
        lambda f: (f / "c").mkdir(),
        other_folder,
    ],
)
def test_a_stale_listing_is_not_used(folder, file, unlisted, change):
    change(folder)
    # A program that copies files may set the times back.
    for path in [folder, *folder.rglob("*/")]:
        os.utime(path, (0, 0))
    found = list_images(folder, file)
    assert not unlisted()
    assert found.names == list_images(folder).names


def test_a_link_that_points_elsewhere(folder, tmp_path, unlisted):
    for name in "xy":
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.png").write_bytes(b"")
    os.symlink(tmp_path / "x", folder / "link")
    file = tmp_path / "images.npz"
    list_images(folder).save(file)
    time.sleep(0.05)
    # What it points to changes, and not the folder that holds the link.
    os.rename(tmp_path / "x", tmp_path / "z")
    os.rename(tmp_path / "y", tmp_path / "x")
    assert unlisted() is False
    names = list_images(folder, file).names
    assert not unlisted()
    assert os.path.join("link", "y.png") in names


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"nothing"])
def test_a_broken_file_is_not_used(folder, file, unlisted, content):
    file.write_bytes(content)
    assert len(list_images(folder, file).names) == 7 and not unlisted()


def test_a_cut_file_is_not_used(folder, file, unlisted):
    file.write_bytes(file.read_bytes()[:-200])
    assert len(list_images(folder, file).names) == 7 and not unlisted()


def test_other_folders_and_formats(folder, file, unlisted, monkeypatch):
    assert len(list_images(folder / "b", file).names) == 3
    assert not unlisted()
    monkeypatch.setattr(listing, "image_suffixes", lambda: {".png", ".new"})
    list_images(folder, file)
    assert not unlisted()


def test_what_was_changed_just_now_is_not_remembered(
    folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(listing, "_SETTLED_NS", 10**12)
    list_images(folder).save(tmp_path / "x.npz")
    assert not (tmp_path / "x.npz").exists()


def test_load_remembers(folder, tmp_path, unlisted):
    (folder / "a" / "nul\udcff.png").unlink()
    file = tmp_path / "images.npz"
    data = kerassl.data.load(folder, image_size=8, remembered=file)
    assert not unlisted()
    data.remember(file)
    again = kerassl.data.load(folder, image_size=8, remembered=file)
    assert unlisted()
    assert again.paths == data.paths and again.class_names == ("a", "b")
    assert again.notes == data.notes != ()
    np.testing.assert_array_equal(again.images[:], data.images[:])
    part = kerassl.data.load(folder, image_size=8, limit=2, remembered=file)
    assert unlisted() and part.labels.tolist() == [0, 1]
    # Other data are nobody's listing.
    kerassl.data.load("fashion_mnist_small", limit=2).remember(tmp_path / "no")
    assert not (tmp_path / "no").exists()
