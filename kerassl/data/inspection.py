"""What a source of images holds, and the statistics of its channels."""

import collections
import dataclasses
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from kerassl.data.arrays import dtype_name
from kerassl.data.decode import open_image
from kerassl.data.decoders import RGB
from kerassl.data.image_files import read_header
from kerassl.data.levels import decoder_for, in_levels
from kerassl.data.load import find
from kerassl.data.photos import Photos
from kerassl.data.spread import spread
from kerassl.data.threads import cores
from kerassl.value_range import Stated

_SIDES = (32, 64, 128, 224, 256, 512, 1024, 2048, 4096)
_LOWS = (0, *_SIDES)
_BATCH = 64

# Called with how many images are done, and how many there are.
Progress = Callable[[int, int], None]


@dataclasses.dataclass
class Inspection:
    """What `inspect` found.

    Args:
        source: str, as in `kerassl.data.load`.
        split: str.
        images: int, the number of images in the split.
        read: int, how many of them were looked at.
        notes: what was left out, in words.
        classes: dict of class name to its number of images, or `None`.
        sizes: dict of `"WIDTHxHEIGHT"` to the number of images.
        short_sides: dict of ranges of the short side to the number of images.
        formats: dict of formats, such as `"JPEG"`, to the number of images.
        modes: dict of color modes, such as `"RGB"` or `"6 channels of uint16"`,
            to the number of images.
        losses: dict of what is lost of images, such as transparency, to the
            number of images.
        unreadable: dict of names of images, or of a file of arrays, to the
            reason.
        seconds: float, the time to decode them, in threads.
        cores: int, how many cores this process may use.
    """

    source: str
    split: str
    images: int
    read: int
    notes: list[str]
    classes: dict[str, int] | None
    sizes: dict[str, int]
    short_sides: dict[str, int]
    formats: dict[str, int]
    modes: dict[str, int]
    losses: dict[str, int]
    unreadable: dict[str, str]
    seconds: float
    cores: int

    @property
    def images_per_second(self) -> float:
        """How many images were decoded in a second."""
        return self.read / max(self.seconds, 1e-9)


def inspect(
    source: str,
    split: str = "train",
    *,
    image_size: int | None = None,
    limit: int | None = None,
    data_dir: str | None = None,
    value_range: Stated = None,
    progress: Progress | None = None,
) -> Inspection:
    """Decodes the images of a source, and counts what it finds.

    Args:
        source: str, as in `kerassl.data.load`.
        split: str, as in `kerassl.data.load`.
        image_size: int, to which photos are resized; by default 224.
        limit: int or `None`, how many images to look at at most, evenly
            spaced. All are counted by class.
        data_dir: as in `kerassl.data.load`.
        value_range: as in `kerassl.data.load`.
        progress: called with the number of images done and of all.

    Returns:
        An `Inspection`.

    Raises:
        ValueError: as in `kerassl.data.load`; unreadable images are counted.
        FileNotFoundError: as in `kerassl.data.load`.

    Example:
    ```python
    found = inspect("folder:photos")
    found.unreadable  # {"photos/7.jpg": "OSError: image file is truncated"}
    ```
    """
    source = os.fspath(source)
    images, labels, names = find(
        source,
        split,
        image_size=image_size,
        data_dir=data_dir,
        # Numbers of an unknown range are counted too.
        value_range=value_range or (0, 1),
    )
    total = len(images)
    start = time.perf_counter()
    if isinstance(images, Photos):
        images = images.limited(limit)
        images.decoder = decoder_for(images, None, value_range)
        counts, unreadable = _look(images, progress)
        notes = images.notes
    else:
        if limit is not None:
            images = images[spread(total, limit)]
        counts, unreadable = _of_array(images), {}
        try:
            in_levels(images, value_range, f"images of {source}")
        except ValueError as error:
            unreadable[source] = str(error)
        notes = []
    return Inspection(
        source,
        split,
        total,
        len(images),
        notes,
        None if labels is None else _by_class(labels, names),
        **{name: _sorted(name, found) for name, found in counts.items()},
        unreadable=unreadable,
        seconds=time.perf_counter() - start,
        cores=cores(),
    )


def _by_class(
    labels: np.ndarray, names: tuple[str, ...] | None
) -> dict[str, int]:
    """Returns the number of images of each class; -1 is none."""
    counts = dict.fromkeys(names or (), 0)
    for label, count in zip(*np.unique(labels, return_counts=True)):
        name = names[label] if names else str(label)
        counts["no label" if label == -1 else name] = int(count)
    return counts


def _sorted(name: str, found: collections.Counter) -> dict[str, int]:
    """Returns ranges in their order, anything else by frequency."""
    if name != "short_sides":
        return dict(found.most_common())
    return {name: found[name] for name in map(_range, _LOWS) if found[name]}


def _counters() -> dict[str, collections.Counter]:
    names = ("sizes", "short_sides", "formats", "modes", "losses")
    return {name: collections.Counter() for name in names}


def _look(
    photos: Photos, progress: Progress | None
) -> tuple[dict[str, collections.Counter], dict[str, str]]:
    """Decodes all photos, and counts their properties."""
    found: dict[int, dict[str, list[str]]] = {}

    def look(index: int) -> None:
        # First the header as it is, since a JPEG may be decoded smaller.
        source = photos.records.source(index)
        if isinstance(photos.decoder, RGB):
            with open_image(source) as file:
                width, height = file.size
                name, mode = file.format or "unknown", file.mode
        else:
            header = read_header(source)
            width, height, name = header.width, header.height, header.format
            mode = f"{header.channels} channels of {header.dtype}"
        _, losses = photos.decoder.checked(source, photos.size)
        found[index] = {
            "sizes": [f"{width}x{height}"],
            "short_sides": [_range(min(width, height))],
            "formats": [name],
            "modes": [mode],
            "losses": losses,
        }

    errors: dict[int, str] = {}
    for first in range(0, len(photos), _BATCH):
        numbers = range(first, min(first + _BATCH, len(photos)))
        errors |= photos.attempt(look, numbers)
        if progress is not None:
            progress(numbers.stop, len(photos))
    counts = _counters()
    for seen in found.values():
        for name, values in seen.items():
            counts[name].update(values)
    return counts, {photos.records.name(i): e for i, e in errors.items()}


def _of_array(images: np.ndarray) -> dict[str, collections.Counter]:
    count, height, width, channels = images.shape
    counts = _counters()
    counts["sizes"][f"{width}x{height}"] = count
    counts["short_sides"][_range(min(width, height))] = count
    counts["formats"][f"array of {dtype_name(images)}"] = count
    counts["modes"][f"{channels} channels"] = count
    return counts


def _range(side: int) -> str:
    low = 0
    for high in _SIDES:
        if side < high:
            return f"{low}-{high - 1}"
        low = high
    return f"{low} and more"


def channel_statistics(
    images: Any, progress: Progress | None = None
) -> dict[str, Any]:
    """Returns the mean and the standard deviation of each channel.

    Args:
        images: array `(N, H, W, C)`, or `Photos`, which are resized.
        progress: called with the number of images done and of all.

    Returns:
        A dict of `"images"`, the number; and of `"mean"` and `"std"`, lists of
        a float for each channel, over all pixels, in the images' range.
    """
    total = np.zeros(images.shape[-1])
    squares = np.zeros(images.shape[-1])
    pixels = 0
    for first in range(0, len(images), _BATCH):
        batch = np.asarray(images[first : first + _BATCH], "float64")
        batch = batch.reshape(-1, batch.shape[-1])
        total += batch.sum(axis=0)
        squares += np.square(batch).sum(axis=0)
        pixels += len(batch)
        if progress is not None:
            progress(min(first + _BATCH, len(images)), len(images))
    mean = total / pixels
    std = np.sqrt(np.maximum(squares / pixels - mean**2, 0.0))
    return {"images": len(images), "mean": mean.tolist(), "std": std.tolist()}
