"""Images in TFRecord files, read one by one without TensorFlow."""

import mmap
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from kerassl.data.records import Ranges


def index_tfrecords(
    files: Sequence[tuple[Path, int, int]],
    image_key: str,
    label_key: str | None,
    limit: int,
) -> tuple[Ranges, list[int | None]]:
    """Finds the images in TFRecord files of `tf.train.Example`s.

    Args:
        files: tuples of a path, how many records to skip and how many to take
            (-1 for all).
        image_key: str, the feature with the encoded image.
        label_key: str, the feature with the label, or `None`.
        limit: int, how many images to find at most.

    Returns:
        A pair: the images as `Ranges`, and the label of each, or `None`.

    Raises:
        ValueError: if a record lacks the image, or a file ends early.
    """
    rows: list[tuple[int, int, int]] = []
    labels: list[int | None] = []
    for number, (path, skip, take) in enumerate(files):
        if not path.stat().st_size:
            continue
        with (
            open(path, "rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            for at, (start, stop) in enumerate(_records(data, path)):
                if at < skip:
                    continue
                if 0 <= take <= at - skip or len(rows) == limit:
                    break
                features = dict(_features(data, start, stop))
                if image_key not in features:
                    raise ValueError(
                        f"Record {at} of {str(path)!r} has no feature "
                        f"{image_key!r}. It has {sorted(features)}."
                    )
                first, last = features[image_key]
                rows.append((number, first, last - first))
                label = None
                if label_key in features:
                    label, _ = _varint(data, features[label_key][0])
                    label -= 2**64 * (label >= 2**63)  # Such as -1.
                labels.append(label)
    paths = [path for path, *_ in files]
    return Ranges(paths, np.array(rows, "int64")), labels


def _records(data: mmap.mmap, path: Path) -> Iterator[tuple[int, int]]:
    """Yields the first and the last byte of each record."""
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 8], "little")
        start = at + 12  # The length has a checksum of 4 bytes, ...
        at = start + size + 4  # ... and so has the record.
        if at > len(data):
            raise ValueError(
                f"{str(path)!r} ends early, in the record at byte "
                f"{start - 12:,}."
            )
        yield start, start + size


def _features(
    data: mmap.mmap, start: int, stop: int
) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yields names of features, and where the first value of each begins.

    An `Example` is a protocol buffer: fields of a tag and a length, nested as
    Example > Features > entries of a name and a Feature > a list > values.
    """
    for _, first, last in _fields(data, start, stop):
        for _, begin, end in _fields(data, first, last):
            parts = {tag: (a, b) for tag, a, b in _fields(data, begin, end)}
            if 1 not in parts or 2 not in parts:
                continue
            name = data[slice(*parts[1])].decode()
            for _, a, b in _fields(data, *parts[2]):
                for _, c, d in _fields(data, a, b):
                    yield name, (c, d)
                    break


def _fields(
    data: mmap.mmap, at: int, stop: int
) -> Iterator[tuple[int, int, int]]:
    """Yields the number, the first and the last byte of each field."""
    while at < stop:
        tag, at = _varint(data, at)
        if tag & 7 == 2:  # With a length.
            size, at = _varint(data, at)
            yield tag >> 3, at, at + size
            at += size
        elif tag & 7 == 0:  # A number.
            start = at
            _, at = _varint(data, at)
            yield tag >> 3, start, at
        else:
            at += 4 if tag & 7 == 5 else 8
            yield tag >> 3, at, at


def _varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    """Returns a number of 7 bits a byte, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
