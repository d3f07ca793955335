import os
import socket

import numpy as np
import pytest
from PIL import Image

from kerassl.data import decode
from kerassl.data.decode import (
    decode_image,
    image_suffixes,
    open_image,
    reductions,
)
from tests.backends import once
from tests.data.made import tiff
from tests.memory import memory_limit

pytestmark = once


@pytest.fixture(scope="module")
def ramp():
    """Red rises to the right, green downwards."""
    pixels = np.full((24, 32, 3), 90, "uint8")
    pixels[..., 0] = np.arange(32) * 8
    pixels[..., 1] = np.arange(24)[:, None] * 10
    return Image.fromarray(pixels)


def reduced(path):
    with open_image(path) as file:
        return " ".join(reductions(file))


def test_every_format_that_pillow_writes_is_read(tmp_path, ramp):
    ramp.save(tmp_path / "x.bmp")
    right = decode_image(tmp_path / "x.bmp", (16, 16)).astype(int)
    read = []
    for suffix in sorted(image_suffixes() - {".icns"}):  # That is square.
        path = tmp_path / f"x{suffix}"
        try:
            ramp.save(path)
        except (KeyError, OSError, ValueError):
            continue  # It only reads this one, or not in color.
        got = decode_image(path, (16, 16)).astype(int)
        assert np.abs(got - right).mean() < 4, suffix
        read.append(suffix)
    for suffix in ".jpg .jfif .png .gif .webp .tif .tiff .bmp .ppm".split():
        assert suffix in read


def test_what_pillow_only_knows_by_name_is_no_image(tmp_path, ramp):
    assert not image_suffixes() & {".eps", ".ps", ".pdf", ".mpg", ".h5"}
    # Nor by another name: Pillow would run Ghostscript on it.
    ramp.save(tmp_path / "x.eps")
    (tmp_path / "x.eps").rename(tmp_path / "x.png")
    with pytest.raises(OSError, match="identify"):
        decode_image(tmp_path / "x.png", (8, 8))


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_the_first_frame_is_kept(tmp_path, suffix):
    red, blue = (Image.new("RGB", (9, 9), c) for c in ("red", "blue"))
    path = tmp_path / f"x.{suffix}"
    red.save(path, save_all=True, append_images=[blue])
    np.testing.assert_allclose(
        decode_image(path, (4, 4))[2, 2], [255, 0, 0], atol=2
    )
    assert "several frames" in reduced(path)
    red.save(path)
    assert reduced(path) == ""


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bits_become_eight(tmp_path, suffix):
    gray = Image.fromarray(np.full((8, 8), 200 * 257, "uint16"))
    path = tmp_path / f"x.{suffix}"
    gray.save(path)
    assert (decode_image(path, (4, 4)) == 200).all()
    assert "16 bits" in reduced(path)


@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_pixels_of_no_known_range_are_refused(tmp_path, dtype):
    path = tmp_path / "x.tif"
    Image.fromarray(np.full((8, 8), 1, dtype)).save(path)
    for read in (reduced, lambda path: decode_image(path, (4, 4))):
        with pytest.raises(ValueError, match="range isn't known"):
            read(path)


def test_what_else_is_reduced_is_said(tmp_path, ramp):
    path = tmp_path / "x.png"
    for image, word in (
        (ramp.convert("RGBA"), "transparency"),
        (ramp.convert("LA"), "transparency"),
        (ramp.convert("L"), ""),
        (ramp.convert("P"), ""),
        (ramp, ""),
    ):
        image.save(path)
        assert word in reduced(path) and bool(word) == bool(reduced(path))
    ramp.convert("P").save(path, transparency=0)
    assert "transparency" in reduced(path)
    Image.new("LAB", (8, 8), (120, 3, 9)).save(tmp_path / "x.tif")
    assert reduced(tmp_path / "x.tif") == ""
    ramp.convert("CMYK").save(tmp_path / "x.jpg")
    assert "CMYK" in reduced(tmp_path / "x.jpg")
    infrared = np.asarray(ramp.convert("RGBA"))
    more = {"photometric": "rgb", "extrasamples": ["unspecified"]}
    path = tiff(tmp_path / "x.tif", infrared, **more)
    assert reduced(path) == "channels besides the colors (ignored)"


def test_only_regular_files_are_opened(tmp_path, ramp):
    os.mkfifo(tmp_path / "pipe.png")
    os.symlink(tmp_path / "gone.png", tmp_path / "broken.png")
    os.symlink(tmp_path / "loop.png", tmp_path / "loop.png")
    os.symlink("/dev/zero", tmp_path / "device.png")
    os.symlink(tmp_path / "pipe.png", tmp_path / "link.png")
    (tmp_path / "folder.png").mkdir()
    folder = os.open(tmp_path, os.O_RDONLY)
    listener = socket.socket(socket.AF_UNIX)
    # The path of a socket must be short.
    listener.bind(f"/proc/self/fd/{folder}/socket.png")
    for name, what in (
        ("pipe", "named pipe"),
        ("link", "named pipe"),
        ("broken", "No such file"),
        ("loop", "[Ll]evels of symbolic links"),
        ("device", "a device"),
        ("folder", "a folder"),
        ("socket", "a socket"),
    ):
        with pytest.raises(OSError, match=what):
            decode_image(tmp_path / f"{name}.png", (8, 8))
    listener.close()
    os.close(folder)
    ramp.save(tmp_path / "real.png")
    os.symlink(tmp_path / "real.png", tmp_path / "good.png")
    assert decode_image(tmp_path / "good.png", (8, 8)).shape == (8, 8, 3)


def test_pixels_are_bounded(tmp_path, monkeypatch):
    image = Image.new("RGB", (640, 640), "red")
    monkeypatch.setattr(decode, "MAX_PIXELS", 100_000)
    for name in ("x.png", "x.gif", "x.tif", "x.bmp", "x.webp"):
        image.save(tmp_path / name)
        with pytest.raises(ValueError, match="409,600 pixels to decode"):
            decode_image(tmp_path / name, (32, 32))
    # A JPEG is decoded at an eighth of its size, unless it is progressive.
    image.save(tmp_path / "x.jpg")
    assert decode_image(tmp_path / "x.jpg", (32, 32)).shape == (32, 32, 3)
    image.save(tmp_path / "p.jpg", progressive=True)
    with pytest.raises(ValueError, match="409,600 pixels to decode"):
        decode_image(tmp_path / "p.jpg", (32, 32))


@pytest.mark.filterwarnings("ignore:Image size")
def test_small_bomb_takes_no_memory(tmp_path):
    path = tmp_path / "x.png"
    Image.new("1", (13_000, 13_000)).save(path)
    with (
        memory_limit(50e6),
        pytest.raises(ValueError, match="169,000,000 pixels"),
    ):
        decode_image(path, (32, 32))
