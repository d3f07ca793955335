"""Decoding of image files to RGB, and which files can be decoded."""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import ImageFile

# A quarter of a GiB of memory in each thread.
MAX_PIXELS = 2**26
# Pillow only recognizes these, or runs another program to read them.
_UNREAD_FORMATS = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
# Tried first, since some of the others are slow to reject a file.
_COMMON_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


def image_formats() -> list[str]:
    """Returns the names of the formats that are read, common ones first.

    These are Pillow's, including those of registered plugins such as
    `pillow_heif`, except EPS, WMF, BUFR, GRIB, HDF5 and MPEG, which Pillow
    can't decode without another program.
    """
    from PIL import Image

    Image.init()
    known = [name for name in Image.OPEN if name not in _UNREAD_FORMATS]
    return sorted(known, key=lambda name: name not in _COMMON_FORMATS)


def image_suffixes() -> set[str]:
    """Returns the suffixes of files that count as images, such as `".jpg"`."""
    from PIL import Image

    formats = set(image_formats())
    suffixes = Image.registered_extensions()
    return {suffix for suffix, name in suffixes.items() if name in formats}


@contextlib.contextmanager
def open_image(
    path: str | Path, size: tuple[int, int] | None = None
) -> Iterator["ImageFile.ImageFile"]:
    """Opens an image file and reads its header.

    Args:
        path: path of the file.
        size: tuple `(height, width)`, or `None`. With a size, a JPEG may be
            decoded at a fraction of its resolution, but at least twice this
            size.

    Yields:
        A `PIL.ImageFile.ImageFile` that isn't decoded yet.

    Raises:
        OSError: if the file is not a regular file or can't be read.
        ValueError: if more than `MAX_PIXELS` would have to be decoded, or
            pixels have 32 bits, whose range is not in the header.
    """
    from PIL import Image

    # Before opening it: a pipe would wait for a writer.
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "something else")
        raise OSError(f"{kind}, not a regular file")
    with Image.open(path, formats=image_formats()) as file:
        pixels = file.width * file.height
        if size is not None:
            # The JPEG decoder does most of the downscaling of a large photo.
            file.draft(None, (2 * max(size), 2 * max(size)))
            if not file.info.get("progressive"):  # Decoded at full size.
                pixels = file.width * file.height
        # In PNG and PGM files these modes have 16 bits.
        if file.mode == "F" or (
            file.mode == "I" and file.format not in ("PNG", "PPM")
        ):
            raise ValueError("32-bit pixels, whose range isn't known")
        if pixels > MAX_PIXELS:
            raise ValueError(
                f"{pixels:,} pixels to decode; at most {MAX_PIXELS:,} are "
                "allowed"
            )
        yield file


def reductions(file: "ImageFile.ImageFile") -> list[str]:
    """Returns what `decode_image` discards of an image, in words.

    Args:
        file: what `open_image` yields.

    Returns:
        A list of strings, empty if nothing is lost.
    """
    found = []
    # The decoder's pixel layout shows whether 16 bits become 8.
    packed = any(";16" in str(tile[3]) for tile in file.tile)
    if packed or file.mode.startswith("I"):
        found.append("16 bits a channel (8 are kept)")
    if file.mode == "CMYK":
        found.append("CMYK colors (converted without a color profile)")
    if "A" in file.mode or "a" in file.mode or "transparency" in file.info:
        found.append("transparency (ignored)")
    # Phones store photos with a preview as MPO.
    if file.format != "MPO" and getattr(file, "is_animated", False):
        found.append("several frames (the first is kept)")
    return found


def decode_image(path: str | Path, size: tuple[int, int]) -> np.ndarray:
    """Decodes an image file to RGB: short side resized, then center crop.

    Photos are rotated as their EXIF block says. The first frame of an animation
    is used, gray and palette images become RGB, transparency is ignored, and
    the upper 8 of 16 bits per channel are kept.

    Args:
        path: path of the file.
        size: tuple `(height, width)`.

    Returns:
        A uint8 array of shape `(height, width, 3)`.

    Raises:
        OSError: see `open_image`.
        ValueError: see `open_image`.
    """
    with open_image(path, size) as file:
        return decode_opened(file, size)


def decode_opened(
    file: "ImageFile.ImageFile", size: tuple[int, int]
) -> np.ndarray:
    """Decodes what `open_image` yields; see `decode_image`."""
    from PIL import Image, ImageOps

    file.load()
    image: Image.Image = file
    with contextlib.suppress(Exception):
        # A damaged EXIF block doesn't affect the pixels.
        ImageOps.exif_transpose(file, in_place=True)
    if image.mode.startswith("I"):
        # Pillow would clip 16 bits at 255.
        pixels = np.asarray(image, "float32") / 257
        image = Image.fromarray(np.clip(pixels, 0, 255).astype("uint8"))
    if image.mode == "P":
        image = image.convert("RGBA")  # Transparency may be in the palette.
    if image.mode != "RGB":
        image = image.convert("RGB")
    return np.asarray(
        ImageOps.fit(image, size[::-1], Image.Resampling.BILINEAR)
    )
