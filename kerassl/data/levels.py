"""Which values of a source become [0, 255], and how its files are decoded."""

import collections
import contextlib
import logging

import numpy as np

from kerassl.data.arrays import check_images, check_memory, check_numbers
from kerassl.data.decoders import RGB, Decoder
from kerassl.data.image_files import Header, read_header, read_pixels
from kerassl.data.photos import Photos
from kerassl.data.planes import Planes
from kerassl.data.spread import spread
from kerassl.value_range import (
    Percentiles,
    Stated,
    ValueRange,
    check_range_fits,
    parse_range,
    range_of,
)

#: How many images percentiles are measured on, evenly spaced.
SAMPLED = 64
# The pixels of each of these, evenly spaced.
_PIXELS = 2**14
# How many headers say how a source is decoded.
_HEADERS = 20
_BLOCK = 1000
# How many images show whether a range suits a source.
_SHOWN = 8
# Levels of 255 that can't be told from black, or from white.
_ALMOST = 8

_logger = logging.getLogger("kerassl")


def in_levels(
    images: np.ndarray, value_range: Stated, name: str
) -> tuple[np.ndarray, ValueRange | None]:
    """Maps the values of an array to [0, 255], and checks it.

    Args:
        images: array `(N, H, W, C)` of numbers.
        value_range: as in `parse_range`. `None` leaves uint8 and floats as
            they are; uint16 has its whole range.
        name: str, what messages call the images.

    Returns:
        A pair: the images, uint8 or float; and the range that was mapped to
        [0, 255], or `None` if the values stayed as they were.

    Raises:
        ValueError: if the range isn't known or doesn't fit, or a value isn't
            valid.
    """
    stated = parse_range(value_range)
    check_numbers(images.shape, images.dtype.name, name, stated)
    if isinstance(stated, Percentiles):
        few = images[spread(len(images), SAMPLED)]
        stated = stated.measured(few.reshape(-1, images.shape[-1]))
    if stated is None and images.dtype.kind != "f":
        stated = range_of(images.dtype)
    if stated is None:
        check_images(images, name)
        return images, None
    check_range_fits(stated, images.shape[-1])
    if value_range is not None:
        few = images[spread(len(images), _SHOWN)]
        _warn_of_units(few.reshape(-1, images.shape[-1]), stated, name)
    check_memory(len(images), images.shape[1:], np.dtype("float32"), name)
    levels = np.empty(images.shape, "float32")
    try:
        for first in range(0, len(images), _BLOCK):
            part = slice(first, first + _BLOCK)
            levels[part] = stated.levels(images[part])
    except ValueError as error:
        raise ValueError(f"`{name}` has {error}.") from error
    return levels, stated


def decoder_for(
    photos: Photos, channels: int | None, value_range: Stated
) -> Decoder:
    """Returns how to decode the images of a source.

    A few headers decide. If all these images are 16-bit, DICOM, arrays, or of
    other channels than gray and RGB, all channels are read at full depth.
    Otherwise images become RGB of 8 bits, unless another number of channels or
    a range is asked for.

    Args:
        photos: `Photos`.
        channels: int, how many channels are needed, or `None` for those that
            the images have. For 3, the channel of gray images is repeated.
        value_range: as in `parse_range`.

    Returns:
        A `Decoder`.

    Raises:
        ValueError: if the range is not valid, or can't be measured; or no
            header has as many channels as are needed.
    """
    stated = parse_range(value_range)
    headers = []
    few = photos.limited(_HEADERS).records
    for i in range(len(few)):
        # Unreadable images are counted, and named, later.
        with contextlib.suppress(Exception):
            headers.append(read_header(few.source(i)))
    are_photos = not headers or any(header.is_photo for header in headers)
    if are_photos and channels in (None, 3) and stated is None:
        return RGB()
    if channels is None:
        channels = _most_common(headers)
    found = {header.channels for header in headers}
    fits = channels in found or (channels == 3 and 1 in found)
    if found and not fits:
        raise ValueError(
            f"The encoder takes images of {channels} channels; these have "
            f"{', '.join(map(str, sorted(found)))}."
        )
    if isinstance(stated, Percentiles):
        stated = stated.measured(_sampled_pixels(photos, channels, SAMPLED))
    check_range_fits(stated, channels)
    if stated is not None:
        # Unreadable images are counted, and named, later.
        with contextlib.suppress(ValueError):
            pixels = _sampled_pixels(photos, channels, _SHOWN)
            where = photos.records.name(0)
            _warn_of_units(pixels, stated, f"images such as {where}")
    if stated is None and len({h.dtype for h in headers}) == 1:
        if headers[0].dtype == "uint16" and headers[0].format != "DICOM":
            stated = range_of("uint16")
    is_deep = stated is not None or any(h.dtype != "uint8" for h in headers)
    is_deep |= any(header.format == "DICOM" for header in headers)
    return Planes(channels, "float32" if is_deep else "uint8", stated)


def _most_common(headers: list[Header]) -> int:
    if not headers:
        return 3
    # Photos become RGB beside each other.
    counts = collections.Counter(header.channels for header in headers)
    if all(header.is_photo for header in headers) and counts[3]:
        return 3
    return counts.most_common(1)[0][0]


def _warn_of_units(pixels: np.ndarray, stated: ValueRange, name: str) -> None:
    """Logs that pixels `(N, C)` become almost black, or white, if they do."""
    with contextlib.suppress(ValueError):  # Not finite: an error later.
        levels = stated.levels(pixels)
        if levels.max() >= _ALMOST and levels.min() <= 255 - _ALMOST:
            return
        low, high = pixels.min(), pixels.max()
        if 0 <= low and 1 < high <= 255:
            bounds = "0,255"
        elif 0 <= low and high <= 1:
            bounds = "0,1"
        else:
            bounds = f"{low:g},{high:g}"
        _logger.warning(
            "The values of %s are %g to %g. The range %s, stated or recorded "
            "with the encoder, makes them almost %s (%.3g to %.3g of 255). If "
            "they are of other units, state theirs: --range=%s.",
            name,
            low,
            high,
            stated,
            "black" if levels.max() < _ALMOST else "white",
            levels.min(),
            levels.max(),
            bounds,
        )


def _sampled_pixels(photos: Photos, channels: int, count: int) -> np.ndarray:
    """Returns pixels of a sample of images, `(N, channels)`."""
    found: list[np.ndarray] = []
    few = photos.limited(count).records
    for i in range(len(few)):
        with contextlib.suppress(Exception):
            values = read_pixels(few.source(i)).values
            pixels = values.reshape(-1, values.shape[-1])
            if pixels.shape[-1] in (1, channels):
                step = -(-len(pixels) // _PIXELS)
                pixels = pixels[::step].astype("float64")
                found.append(np.repeat(pixels, channels // pixels.shape[-1], 1))
    if not found:
        raise ValueError("No image can be read to measure a range.")
    return np.concatenate(found)
