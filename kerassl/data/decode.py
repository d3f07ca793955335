"""Image files: which ones can be read, and how they become RGB."""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import ImageFile

# A quarter of a GiB in memory, in each thread.
MAX_PIXELS = 2**26
# Pillow knows these by name only, or runs another program on them.
_UNREAD_FORMATS = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
# Tried first, since some of the others take a while to say no.
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

    These are Pillow's, those of registered plugins (such as `pillow_heif`)
    included. Not among them is what Pillow passes on to another program, or
    can't decode without one: EPS, WMF, BUFR, GRIB, HDF5 and MPEG.
    """
    from PIL import Image

    Image.init()
    known = [name for name in Image.OPEN if name not in _UNREAD_FORMATS]
    return sorted(known, key=lambda name: name not in _COMMON_FORMATS)


def image_suffixes() -> set[str]:
    """Returns the suffixes of files that are taken for images, as `".jpg"`."""
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
        path: str or path.
        size: pair `(height, width)` or `None`. A JPEG may then be decoded at
            a fraction of its resolution, but at twice this size or more.

    Yields:
        A `PIL.ImageFile.ImageFile`, not decoded yet.

    Raises:
        OSError: If it isn't a regular file, or can't be read.
        ValueError: If more than `MAX_PIXELS` would have to be decoded, or
            the pixels are of 32 bits, whose range no header tells.
    """
    from PIL import Image

    # Before it is opened: a pipe would wait for someone to write.
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "something else")
        raise OSError(f"{kind}, not a regular file")
    with Image.open(path, formats=image_formats()) as file:
        pixels = file.width * file.height
        if size is not None:
            # The JPEG decoder does most of the shrinking of a large photo.
            file.draft(None, (2 * max(size), 2 * max(size)))
            if not file.info.get("progressive"):  # Those it holds as a whole.
                pixels = file.width * file.height
        # PNG and PGM say that theirs are of 16 bits.
        if file.mode == "F" or (
            file.mode == "I" and file.format not in ("PNG", "PPM")
        ):
            raise ValueError("32-bit pixels, whose range isn't known")
        if pixels > MAX_PIXELS:
            raise ValueError(
                f"{pixels:,} pixels to decode, and at most {MAX_PIXELS:,} are"
            )
        yield file


def reductions(file: "ImageFile.ImageFile") -> list[str]:
    """Returns what an opened image has that `decode_image` leaves out."""
    found = []
    # How the decoder unpacks pixels tells of 16 bits that become 8.
    packed = any(";16" in str(tile[3]) for tile in file.tile)
    if packed or file.mode.startswith("I"):
        found.append("16 bits a channel (8 are kept)")
    if file.mode == "CMYK":
        found.append("CMYK colors (converted without a color profile)")
    if "A" in file.mode or "a" in file.mode or "transparency" in file.info:
        found.append("transparency (ignored)")
    # Phones write photos with a preview as MPO.
    if file.format != "MPO" and getattr(file, "is_animated", False):
        found.append("several frames (the first is kept)")
    return found


def decode_image(path: str | Path, size: tuple[int, int]) -> np.ndarray:
    """Decodes an image file as RGB: short side resized, then center crop.

    A photo is turned upright as its EXIF block says, the first frame of an
    animation is taken, gray and palette images become RGB, transparency is
    left out, and of 16 bits a channel the upper 8 are kept.

    Args:
        path: str or path.
        size: pair `(height, width)`.

    Returns:
        A uint8 array of shape `(height, width, 3)`.

    Raises:
        OSError: As in `open_image`.
        ValueError: As in `open_image`.
    """
    with open_image(path, size) as file:
        return decode_opened(file, size)


def decode_opened(
    file: "ImageFile.ImageFile", size: tuple[int, int]
) -> np.ndarray:
    """Decodes what `open_image` opened; see `decode_image`."""
    from PIL import Image, ImageOps

    file.load()
    image: Image.Image = file
    with contextlib.suppress(Exception):
        # A damaged EXIF block leaves the pixels fine.
        ImageOps.exif_transpose(file, in_place=True)
    if image.mode.startswith("I"):
        # Pillow would clip 16 bits at 255.
        pixels = np.asarray(image, "float32") / 257
        image = Image.fromarray(np.clip(pixels, 0, 255).astype("uint8"))
    if image.mode == "P":
        image = image.convert("RGBA")  # Its transparency may be a table.
    if image.mode != "RGB":
        image = image.convert("RGB")
    return np.asarray(
        ImageOps.fit(image, size[::-1], Image.Resampling.BILINEAR)
    )
