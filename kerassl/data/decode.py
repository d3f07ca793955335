"""Decoding of image files to RGB, and which files can be decoded."""

import contextlib
import functools
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from kerassl.data.resize import resize_box

if TYPE_CHECKING:
    from PIL import Image, ImageFile

# Where an encoded image is: a file, or its bytes as an open file.
Source: TypeAlias = str | Path | IO[bytes]

SIXTEEN_BITS = "16 bits a channel"
# A quarter of a GiB of memory in each thread.
MAX_PIXELS = 2**26
# Pillow only recognizes these, or runs another program to read them.
_UNREAD_FORMATS = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
# Tried first, since some of the others are slow to reject a file.
_COMMON_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
_ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")
_ORIENTATION = 0x0112
_EXTRA_SAMPLES = 0x0152
# The header of JPEG 2000 is within these.
_JPEG_2000_BYTES = 4096
# What makes a photo upright, by the orientation in its EXIF block.
_TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


class Cut(NamedTuple):
    """A box of an upright photo, in its pixels, and what it becomes.

    Args:
        top: float, the first row.
        left: float, the first column.
        height: float > 0, in rows.
        width: float > 0, in columns.
        size: int > 0, the height and width of the result.
        interpolation: `"bilinear"` or `"bicubic"`.
    """

    top: float
    left: float
    height: float
    width: float
    size: int
    interpolation: str = "bilinear"


def image_formats() -> list[str]:
    """Returns the names of the formats that are read, common ones first.

    These are Pillow's, including those of registered plugins such as
    `pillow_heif`, except EPS, WMF, BUFR, GRIB, HDF5 and MPEG, which Pillow
    can't decode without another program.
    """
    from PIL import Image

    Image.init()
    return list(_ordered(tuple(Image.OPEN)))


@functools.lru_cache
def _ordered(names: tuple[str, ...]) -> list[str]:
    known = [name for name in names if name not in _UNREAD_FORMATS]
    return sorted(known, key=lambda name: name not in _COMMON_FORMATS)


def image_suffixes() -> set[str]:
    """Returns the suffixes of files that count as images, such as `".jpg"`."""
    from PIL import Image

    formats = set(image_formats())
    suffixes = Image.registered_extensions()
    return {suffix for suffix, name in suffixes.items() if name in formats}


@contextlib.contextmanager
def open_image(
    source: Source, size: tuple[int, int] | None = None
) -> Iterator["ImageFile.ImageFile"]:
    """Opens an image file and reads its header.

    Args:
        source: path of the file, or its bytes as an open file.
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
    with opened(source) as file:
        ratio = 1.0 if size is None else min(file.size) / max(size)
        _prepare(file, ratio)
        yield file


def check_regular(path: str | Path) -> None:
    """Checks that a path is a file's, before it is opened.

    Raises:
        OSError: if not: a pipe would wait for a writer.
    """
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "something else")
        raise OSError(f"{kind}, not a regular file")


def check_pixels(count: int) -> None:
    """Checks that so many numbers may be decoded at once.

    Raises:
        ValueError: if they are more than `MAX_PIXELS`.
    """
    if count > MAX_PIXELS:
        raise ValueError(
            f"{count:,} pixels to decode; at most {MAX_PIXELS:,} are allowed"
        )


@contextlib.contextmanager
def opened(source: Source) -> Iterator["ImageFile.ImageFile"]:
    """Opens an image with Pillow, whatever it holds; see `open_image`."""
    from PIL import Image

    if isinstance(source, (str, Path)):
        check_regular(source)
    with Image.open(source, formats=image_formats()) as file:
        yield file


def _prepare(file: "ImageFile.ImageFile", ratio: float) -> None:
    """Chooses the resolution of a JPEG, and refuses what can't be decoded.

    Args:
        file: an opened image.
        ratio: float, how many pixels a side has for each one that is needed.
            A JPEG keeps at least two of them.
    """
    pixels = file.width * file.height
    # The JPEG decoder does most of the downscaling of a large photo.
    if ratio >= 4:
        width, height = (int(side * 2 / ratio) for side in file.size)
        file.draft(None, (max(1, width), max(1, height)))
    if not file.info.get("progressive"):  # Decoded at full size.
        pixels = file.width * file.height
    # In PNG and PGM files these modes have 16 bits.
    if file.mode == "F" or (
        file.mode == "I" and file.format not in ("PNG", "PPM")
    ):
        raise ValueError("32-bit pixels, whose range isn't known")
    check_pixels(pixels)


def reductions(file: "ImageFile.ImageFile") -> list[str]:
    """Returns what `decode_image` discards of an image, in words.

    Args:
        file: what `open_image` yields.

    Returns:
        A list of strings, empty if nothing is lost.
    """
    found = []
    if _is_deep(file) or file.mode.startswith("I"):
        found.append(f"{SIXTEEN_BITS} (8 are kept)")
    if file.mode == "CMYK":
        found.append("CMYK colors (converted without a color profile)")
    if file.mode in _ALPHA_MODES or "transparency" in file.info:
        found.append("transparency (ignored)")
    # Of TIFF: what samples besides the colors mean; 0 is unspecified.
    if 0 in getattr(file, "tag_v2", {}).get(_EXTRA_SAMPLES, ()):
        found.append("channels besides the colors (ignored)")
    # Phones store photos with a preview as MPO.
    if file.format != "MPO" and getattr(file, "is_animated", False):
        found.append("several frames (the first is kept)")
    return found


def _is_deep(file: "ImageFile.ImageFile") -> bool:
    """Returns whether channels of color have more than 8 bits."""
    # The decoder's pixel layout shows whether 16 bits become 8.
    for codec, _, _, layout in file.tile:
        if ";16" in str(layout):
            return True
        if codec == "ppm" and isinstance(layout, tuple):
            return layout[1] > 255  # The largest value.
    if file.format == "JPEG2000" and file.fp is not None:
        position = file.fp.tell()
        file.fp.seek(0)
        start = file.fp.read(_JPEG_2000_BYTES)
        file.fp.seek(position)
        _, mark, header = start.partition(b"\xff\x4f\xff\x51")
        # After the sizes, the bits of the first channel, less one.
        return bool(mark) and len(header) > 38 and header[38] & 127 > 7
    return False


def decode_image(source: Source, size: tuple[int, int]) -> np.ndarray:
    """Decodes an image file to RGB: short side resized, then center crop.

    Photos are rotated as their EXIF block says. The first frame of an animation
    is used, gray and palette images become RGB, transparency is ignored, and
    the upper 8 of 16 bits per channel are kept.

    Args:
        source: path of the file, or its bytes as an open file.
        size: tuple `(height, width)`.

    Returns:
        A uint8 array of shape `(height, width, 3)`.

    Raises:
        OSError: see `open_image`.
        ValueError: see `open_image`.
    """
    with open_image(source, size) as file:
        return decode_opened(file, size)


def decode_opened(
    file: "ImageFile.ImageFile", size: tuple[int, int]
) -> np.ndarray:
    """Decodes what `open_image` yields; see `decode_image`."""
    from PIL import Image, ImageOps

    image = _upright_rgb(file, _orientation(file))
    return np.asarray(
        ImageOps.fit(image, size[::-1], Image.Resampling.BILINEAR)
    )


def decode_cuts(
    source: Source, plan: Callable[[int, int], Sequence[Cut]]
) -> list[np.ndarray]:
    """Decodes an image file to RGB, and cuts boxes out of the whole photo.

    Args:
        source: as in `decode_image`.
        plan: function of the upright photo's height and width in pixels, which
            returns the boxes.

    Returns:
        A list of uint8 arrays `(size, size, 3)`, one for each box. They differ
        from those of the photo decoded in full by rounding only, unless each
        box has at least four times as many rows and columns as are needed.

    Raises:
        OSError: see `open_image`.
        ValueError: see `open_image`.
    """
    with opened(source) as file:
        width, height = file.size
        orientation = _orientation(file)
        if orientation in (5, 6, 7, 8):  # Turned by a right angle.
            width, height = height, width
        cuts = plan(height, width)
        _prepare(file, min(min(c.height, c.width) / c.size for c in cuts))
        image = _upright_rgb(file, orientation)
    # What is left of the resolution.
    x, y = image.width / width, image.height / height
    return [
        resize_box(
            image,
            (
                cut.left * x,
                cut.top * y,
                # Products may be rounded up.
                min((cut.left + cut.width) * x, image.width),
                min((cut.top + cut.height) * y, image.height),
            ),
            (cut.size, cut.size),
            cut.interpolation,
        )
        for cut in cuts
    ]


def _orientation(file: "ImageFile.ImageFile") -> int:
    """Returns how the EXIF block turns the photo: 1 to 8, 1 is upright."""
    if file.format == "TIFF":  # Pillow turns these itself, and their size.
        return 1
    with contextlib.suppress(Exception):
        # A damaged EXIF block doesn't affect the pixels.
        return int(file.getexif().get(_ORIENTATION, 1))
    return 1


def upright(
    file: "ImageFile.ImageFile", orientation: int | None = None
) -> "Image.Image":
    """Decodes an opened image, and turns it upright.

    Args:
        file: what `opened` yields.
        orientation: int, what its EXIF block says, if that is known.
    """
    from PIL import Image

    if orientation is None:
        orientation = _orientation(file)
    file.load()
    if orientation in _TURNS:
        return file.transpose(getattr(Image.Transpose, _TURNS[orientation]))
    return file


def _upright_rgb(
    file: "ImageFile.ImageFile", orientation: int
) -> "Image.Image":
    """Decodes an opened image to RGB, and turns it upright."""
    from PIL import Image

    image = upright(file, orientation)
    if image.mode.startswith("I"):
        # Pillow would clip 16 bits at 255.
        pixels = np.asarray(image, "float32") / 257
        image = Image.fromarray(np.clip(pixels, 0, 255).astype("uint8"))
    if image.mode == "P":
        image = image.convert("RGBA")  # Transparency may be in the palette.
    return image if image.mode == "RGB" else image.convert("RGB")
