"""Reads all channels and bits of image files: TIFF, DICOM, `.npy`, PNG."""

import contextlib
import dataclasses
import io
import math
from collections.abc import Iterator
from typing import IO, Any

import numpy as np

from kerassl.data import decode
from kerassl.data.decode import Source
from kerassl.data.stored import channels_first, native, read_npy_header
from kerassl.value_range import MAX_CHANNELS, ValueRange, range_of

#: Suffixes of images that Pillow doesn't know.
SUFFIXES = (".dcm", ".dicom", ".npy")
# The first bytes of TIFF and BigTIFF, in either byte order.
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_NPY = b"\x93NUMPY"
# Axes of TIFF that hold channels; pages without a meaning count as such.
_CHANNEL_AXES = "SCIQ"
# How many samples a TIFF of photos in RGB has, and what those besides the
# colors mean: transparency, associated (1) or not (2).
_RGB_SAMPLES = ((3,), (4, 1), (4, 2))
# The beginnings of DICOM's color spaces that are read.
_SPACES = ("MONOCHROME", "RGB", "YBR_", "PALETTE COLOR")
_MISSING = 'needs {0}: pip install "kerassl[scientific]"'


@dataclasses.dataclass(frozen=True)
class Header:
    """What an image file holds.

    Args:
        height: int, in pixels.
        width: int.
        channels: int.
        dtype: str, of the values.
        format: str, such as `"TIFF"`.
        is_photo: bool. Whether Pillow reads it as gray or RGB of 8 bits
            without losing a channel.
        lost: what `read_pixels` doesn't read of it, in words.
    """

    height: int
    width: int
    channels: int
    dtype: str
    format: str
    is_photo: bool = False
    lost: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Pixels:
    """The values of an image file, as they are stored.

    Args:
        values: array `(H, W, C)` of numbers.
        window: `ValueRange` that the file itself states, or `None`.
        inverted: bool. Whether the lowest value is white.
        refused: str, why the file's own range can't be used; empty if it can.
    """

    values: np.ndarray
    window: ValueRange | None = None
    inverted: bool = False
    refused: str = ""

    def levels(self, value_range: ValueRange | None) -> np.ndarray:
        """Returns the image in [0, 255]; uint8 if it was and stays so.

        Args:
            value_range: `ValueRange`, or `None` for that of the file, which
                is otherwise that of its dtype.

        Raises:
            ValueError: if the range isn't known, or a value isn't finite.
        """
        if value_range is None and self.refused:
            raise ValueError(self.refused)
        found = value_range or self.window or range_of(self.values.dtype)
        x = self.values if found is None else found.levels(self.values)
        return 255 - x if self.inverted else x


def read_header(source: Source) -> Header:
    """Reads what an image file holds, without most of its pixels.

    Args:
        source: path of the file, or its bytes as an open file.

    Raises:
        OSError: if it can't be read as an image.
        ValueError: if it has too many pixels or channels.
    """
    with _opened(source) as (kind, file):
        if kind == "TIFF" and (header := _tiff_header(file)):
            return header
        if kind == "DICOM":
            found = _dicom(file, stop_before_pixels=True)
            is_deep = found.get("BitsAllocated", 16) > 8
            dtype = "uint16" if is_deep else "uint8"
            channels = 3 if _is_color(found) else 1
            size = int(found.Rows), int(found.Columns)
            return Header(*size, channels, dtype, kind)
        if kind == "NPY":
            return _npy_header(file)
        with decode.opened(file) as image:
            dtype, channels = _mode(image)
            is_photo = dtype == "uint8"
            size = image.height, image.width
            name = image.format or "unknown"
            lost = [
                words
                for words in decode.reductions(image)
                if is_photo or not words.startswith(decode.SIXTEEN_BITS)
            ]
            return Header(*size, channels, dtype, name, is_photo, tuple(lost))


def read_pixels(source: Source) -> Pixels:
    """Reads all channels of an image file, as they are stored.

    Args:
        source: as in `read_header`.

    Raises:
        OSError: as `read_header`.
        ValueError: as `read_header`.
    """
    with _opened(source) as (kind, file):
        if kind == "TIFF" and _tiff_header(file):
            return _read_tiff(file)
        if kind == "DICOM":
            return _read_dicom(file)
        if kind == "NPY":
            return Pixels(_checked_npy(np.load(file, allow_pickle=False)))
        with decode.opened(file) as image:
            dtype, channels = _mode(image)
            decode.check_pixels(image.width * image.height)
            raw = _deep_color(image)
            if not raw:
                upright = decode.upright(image)
                if dtype == "uint8":
                    upright = upright.convert("L" if channels == 1 else "RGB")
                values = np.asarray(upright)
        if raw:
            values = _read_deep_color(file, raw)
        return Pixels(values.reshape(*values.shape[:2], -1).astype(dtype))


@contextlib.contextmanager
def _opened(source: Source) -> Iterator[tuple[str, IO[bytes]]]:
    """Opens a file, and tells its kind by its first bytes."""
    with contextlib.ExitStack() as stack:
        if isinstance(source, io.IOBase) or hasattr(source, "read"):
            file: Any = source
            file.seek(0)
        else:
            decode.check_regular(source)
            file = stack.enter_context(open(source, "rb"))
        start = file.read(132)
        file.seek(0)
        kind = ""
        if start[:4] in _TIFF and _has("tifffile"):
            kind = "TIFF"
        elif start[128:] == b"DICM":
            kind = "DICOM"
        elif start[:6] == _NPY:
            kind = "NPY"
        yield kind, file


def _has(package: str) -> bool:
    """Returns whether a package is there; Pillow reads some TIFF itself."""
    with contextlib.suppress(ImportError):
        __import__(package)
        return True
    return False


def _mode(image: Any) -> tuple[str, int]:
    """Returns the dtype and the number of channels of an image of Pillow."""
    if image.mode == "F":
        return "float32", 1
    if raw := _deep_color(image):
        return "uint16", 1 if raw == "LA;16B" else 3
    if image.mode.startswith("I"):
        # In PNG and PGM files, "I" has 16 bits.
        has_16 = "16" in image.mode or image.format in ("PNG", "PPM")
        return ("uint16" if has_16 else "int32"), 1
    return "uint8", 1 if image.mode in ("1", "L", "LA", "La") else 3


def _deep_color(image: Any) -> str:
    """Returns how 16 bits of color or transparency are stored in a PNG.

    Args:
        image: an opened image of Pillow.

    Returns:
        A raw mode of Pillow, or an empty string for all other images.
    """
    raw = str(image.tile[0][3]) if image.tile else ""
    is_deep = raw in ("RGB;16B", "RGBA;16B", "LA;16B")
    return raw if is_deep and image.format == "PNG" else ""


def _read_deep_color(file: IO[bytes], raw: str) -> np.ndarray:
    """Reads all 16 bits of such a PNG, which Pillow reduces to 8.

    Pillow keeps the upper byte of each number, so it is asked twice: as if the
    upper byte was the first of two, which it is, and as if it was the second.
    """

    def read(raw: str) -> np.ndarray:
        with decode.opened(file) as image:
            image.tile = [(*image.tile[0][:3], raw)]  # type: ignore[list-item]
            return np.asarray(decode.upright(image)).astype("uint16")

    if raw == "LA;16B":  # Four bytes, as of RGBA in 8 bits.
        pixels = read("RGBA")
        return 256 * pixels[..., :1] + pixels[..., 1:2]
    upper, lower = read(raw), read(raw.replace("16B", "16L"))
    return (256 * upper + lower)[..., :3]


def _npy_header(file: IO[bytes]) -> Header:
    shape, _, dtype = read_npy_header(file)
    # As the array, in the memory of one value.
    like = np.broadcast_to(np.empty((), dtype.newbyteorder("=")), shape)
    values = _checked_npy(like)
    height, width, channels = values.shape
    return Header(height, width, channels, values.dtype.name, "NPY")


def _checked_npy(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind not in "uif":
        raise ValueError(f"an array of {values.dtype.name}, not of pixels")
    return _checked(values, last_first=True)


def _checked(values: np.ndarray, last_first: bool = False) -> np.ndarray:
    """Returns `(H, W, C)`; the channels may come first in an array's file."""
    if values.ndim == 2:
        values = values[..., None]
    if last_first and values.ndim == 3:
        if values.shape[-1] > MAX_CHANNELS or channels_first(values.shape):
            values = np.moveaxis(values, 0, -1)
    if values.ndim != 3 or values.shape[-1] > MAX_CHANNELS or 0 in values.shape:
        raise ValueError(
            f"an array of shape {values.shape}, not (height, width) or "
            f"(height, width, channels) of 1 to {MAX_CHANNELS} channels"
        )
    decode.check_pixels(values.size)
    return native(values)


def _tiff_header(file: IO[bytes]) -> Header | None:
    """Returns what a TIFF holds; `None` for photos, which Pillow reads."""
    import tifffile

    with tifffile.TiffFile(file) as tiff:
        series = tiff.series[0]
        axes, shape = series.axes, series.shape
        sizes = dict(zip(axes, shape))
        photometric = _photometric(tiff)
        extra = tiff.pages.first.extrasamples
        dtype = np.dtype(series.dtype)
        # Not smaller versions of an image, nor masks.
        images = [s for s in tiff.series if not s.keyframe.subfiletype & 5]
        lost = ("several series (the first is read)",) * (len(images) > 1)
    file.seek(0)
    samples = sizes.get("S", 1)
    is_rgb = photometric == "RGB" and (samples, *extra) in _RGB_SAMPLES
    # Unnamed pages of 8 bits are those of a document.
    others = set(axes) - set("YXS" if dtype == np.uint8 else "YX")
    if (
        (dtype == np.uint8 and (samples == 1 or is_rgb) and others <= set("I"))
        or dtype.kind == "b"
        or photometric in ("PALETTE", "YCBCR", "CIELAB", "SEPARATED")
    ):
        return None
    channels = math.prod(shape) // max(1, sizes["Y"] * sizes["X"])
    return Header(
        sizes["Y"], sizes["X"], channels, dtype.name, "TIFF", lost=lost
    )


def _photometric(tiff: Any) -> str:
    return getattr(tiff.pages[0].photometric, "name", "")


def _read_tiff(file: IO[bytes]) -> Pixels:
    import tifffile

    with tifffile.TiffFile(file) as tiff:
        series = tiff.series[0]
        axes = series.axes
        decode.check_pixels(math.prod(series.shape))
        rest = axes.replace("Y", "").replace("X", "")
        if len(rest) > 1 or rest not in _CHANNEL_AXES:
            raise ValueError(
                f"TIFF of the axes {axes} and the shape {series.shape}: rows, "
                "columns and channels are read"
            )
        values = series.asarray()
        inverted = _photometric(tiff) == "MINISWHITE"
    if rest:
        values = np.moveaxis(values, axes.index(rest), -1)
    if values.dtype.kind not in "uif":
        raise ValueError(f"TIFF of {values.dtype.name}")
    return Pixels(_checked(values), inverted=inverted)


def _dicom(file: IO[bytes], **options: Any) -> Any:
    try:
        import pydicom
    except ImportError as error:
        raise ImportError(f"DICOM {_MISSING.format('pydicom')}") from error
    found = pydicom.dcmread(file, **options)
    if int(found.get("NumberOfFrames", 1) or 1) != 1:
        raise ValueError(
            f"DICOM of {found.NumberOfFrames} frames: write each to a file of "
            "its own, as docs/data.md shows"
        )
    if "Rows" not in found:
        raise ValueError("DICOM without an image")
    space = found.get("PhotometricInterpretation", "none")
    if not str(space).startswith(_SPACES):
        raise ValueError(f"DICOM of the color space {space}")
    return found


def _is_color(found: Any) -> bool:
    return not found.PhotometricInterpretation.startswith("MONOCHROME")


def _read_dicom(file: IO[bytes]) -> Pixels:
    """Reads an image of colors, or the rescaled values and their window."""
    found = _dicom(file)
    from pydicom.pixels import apply_color_lut, apply_modality_lut, pixel_array

    decode.check_pixels(int(found.Rows) * int(found.Columns))
    try:
        values = pixel_array(found)  # YCbCr becomes RGB.
    except RuntimeError as error:
        if "missing dependencies" not in str(error):
            raise
        name = found.file_meta.TransferSyntaxUID.name
        raise ImportError(
            f'DICOM of {name} needs a decoder: pip install "pylibjpeg[all]"'
        ) from error
    if _is_color(found):
        if found.PhotometricInterpretation == "PALETTE COLOR":
            values = apply_color_lut(values, found)
            bits = 8 * values.dtype.itemsize
        else:
            bits = int(found.BitsStored)
        depth = None if bits == 8 else ValueRange((0,), (2.0**bits - 1,))
        return Pixels(_checked(np.asarray(values)), depth)
    values = apply_modality_lut(values, found)
    window: ValueRange | None = None
    refused = ""
    function = str(found.get("VOILUTFunction", "LINEAR") or "LINEAR")
    centers, widths = found.get("WindowCenter"), found.get("WindowWidth")
    if centers is not None and widths is not None:
        center, width = (float(np.ravel(v)[0]) for v in (centers, widths))
        if function == "LINEAR":  # As part 3 of DICOM, C.11.2.1.2, has it.
            window = _window(center - 0.5, max(width - 1, 1e-3))
        elif function == "LINEAR_EXACT":
            window = _window(center, max(width, 1e-3))
        else:
            refused = f"a DICOM window of the kind {function}: state --range"
    elif "VOILUTSequence" in found:
        refused = "a DICOM window that is a table: state --range"
    else:
        bits = int(found.BitsStored)
        signed = int(found.PixelRepresentation)
        ends = np.array([0, 2**bits - 1]) - (2 ** (bits - 1) if signed else 0)
        slope = float(found.get("RescaleSlope", 1) or 1)
        ends = np.sort(ends * slope + float(found.get("RescaleIntercept", 0)))
        window = ValueRange((ends[0],), (ends[1],))
        if "ModalityLUTSequence" in found:
            window, refused = None, "DICOM without a window: state --range"
    return Pixels(
        _checked(np.asarray(values)),
        window,
        found.PhotometricInterpretation == "MONOCHROME1",
        refused,
    )


def _window(center: float, width: float) -> ValueRange:
    return ValueRange((center - width / 2,), (center + width / 2,))
