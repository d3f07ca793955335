"""Images in tar files, as WebDataset writes them."""

import collections
import dataclasses
import logging
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np

from kerassl.data.arrays import parse_size
from kerassl.data.decode import image_suffixes
from kerassl.data.files import Skipped, check_is_train, number_classes
from kerassl.data.listing import load_about, save_about
from kerassl.data.photos import DEFAULT_SIZE, Photos
from kerassl.data.records import Ranges
from kerassl.data.remote import (
    find_files,
    for_each,
    identity,
    open_file,
    unreachable,
)

# Counted like a suffix, as runs remember it.
_DOUBLES = "images with another's name up to the first dot"

# How many bytes after the end mark are read at a time.
_FOLLOWING = 2**20

_logger = logging.getLogger("kerassl")


@dataclasses.dataclass
class Found:
    """What one tar file holds.

    Args:
        ranges: list of the first byte and the number of bytes of each image.
        classes: the content of each image's `.cls`, or `None`.
        skipped: the number of other members, by suffix.
    """

    ranges: list[tuple[int, int]]
    classes: list[str | None]
    skipped: dict[str, int]


@dataclasses.dataclass
class TarIndex:
    """What tar files hold, and how to see that they are still the same.

    Args:
        files: dict of the path or URL of each file to what `identity` says of
            it, and what it holds.
    """

    files: dict[str, tuple[str, Found]]

    def save(self, path: str | Path) -> None:
        """Writes the index to a file."""
        told = {
            "suffixes": sorted(image_suffixes()),
            "tars": [
                [name, stamp, *dataclasses.astuple(found)]
                for name, (stamp, found) in self.files.items()
            ],
        }
        save_about(path, told)


def remembered_tars(path: str | os.PathLike | None) -> TarIndex:
    """Returns what a file holds; nothing if it is missing or broken."""
    told = None if path is None else load_about(path)
    if told is None or told.get("suffixes") != sorted(image_suffixes()):
        return TarIndex({})
    return TarIndex(
        {
            name: (stamp, Found([(a, b) for a, b in ranges], classes, skipped))
            for name, stamp, ranges, classes, skipped in told.get("tars", ())
        }
    )


def load_tars(
    pattern: str,
    split: str,
    image_size: int | tuple[int, int] | None,
    limit: int | None,
    remembered: str | os.PathLike | None = None,
) -> tuple[Photos, tuple[str, ...] | None]:
    """Finds the images in tar files.

    Args:
        pattern: path or URL of a tar file, or of several, as in `find_files`.
        split: str. All images are the split `"train"`.
        image_size: int, `(height, width)`, or `None` for 224.
        limit: int, how many images to keep, evenly spaced; or `None` for all.
        remembered: path of a file that `TarIndex.save` wrote, or of none.
            Files that haven't changed aren't indexed again.

    Returns:
        A pair: the photos, and the class names or `None`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a file is not a tar file, or holds no image, or there is
            no such split.
    """
    check_is_train(split, "tar files", "train-*.tar")
    size = parse_size(DEFAULT_SIZE if image_size is None else image_size)
    index = index_tars(find_files(pattern), remembered)
    rows: list[tuple[int, int, int]] = []
    texts: list[str | None] = []
    skipped = Skipped()
    for number, (_, found) in enumerate(index.files.values()):
        rows += [(number, *one) for one in found.ranges]
        texts += found.classes
        skipped.suffixes.update(found.skipped)
    doubles = skipped.suffixes.pop(_DOUBLES, 0)
    if not rows:
        raise ValueError(
            f"{pattern!r} holds no image, such as .jpg or .png. It holds "
            f"{skipped or 'no file'}."
        )
    classes, labels = _classes(texts)
    records = Ranges(list(index.files), np.array(rows, "int64"))
    photos = Photos(records, size, labels)
    left = [f"{doubles:,} {_DOUBLES}"] if doubles else []
    if words := "; ".join(filter(None, [*left, str(skipped)])):
        _logger.warning("Left out of %r: %s", pattern, words)
        photos.notes.append(f"left out: {words}")
    photos = photos.limited(limit)
    photos.listing = index
    return photos, classes


def _classes(
    texts: list[str | None],
) -> tuple[tuple[str, ...] | None, np.ndarray | None]:
    """Returns the class names and the labels; `None` if one is missing."""
    if any(text is None for text in texts):
        if any(texts):
            _logger.warning(
                "No image has a label, since %d of %d have no .cls.",
                texts.count(None),
                len(texts),
            )
        return None, None
    return number_classes([(text or "").strip() for text in texts])


def index_tars(
    paths: Sequence[str], remembered: str | os.PathLike | None = None
) -> TarIndex:
    """Finds the images in tar files, as WebDataset writes them.

    Members whose paths are equal up to the first dot of the name belong
    together: an image, and in `.cls` its class. Only headers are read, but
    from URLs also what is between them if that is less than a megabyte.

    Args:
        paths: the tar files, not compressed: paths or URLs.
        remembered: as in `load_tars`.

    Returns:
        A `TarIndex`.

    Raises:
        FileNotFoundError: if a file isn't there.
        ValueError: if a file is not a tar file, or compressed, or can't be
            read.
    """
    known = remembered_tars(remembered).files
    suffixes = image_suffixes()

    def index(path: str) -> tuple[str, Found]:
        try:
            stamp = identity(path)
            if path in known and known[path][0] == stamp:
                return known[path]
            with open_file(path) as file:
                return stamp, _index(file, suffixes)
        except tarfile.TarError as error:
            raise ValueError(
                f"{str(path)!r} is not a readable tar file, not compressed: "
                f"{error}"
            ) from error
        except Exception as error:
            raise unreachable(path, error) from error

    return TarIndex(dict(zip(paths, for_each(index, paths))))


def _index(tar: IO[bytes], suffixes: set[str]) -> Found:
    found: dict[str, tuple[int, int]] = {}
    classes: dict[str, str] = {}
    skipped: collections.Counter[str] = collections.Counter()
    with tarfile.open(fileobj=tar, mode="r:") as archive:
        for member in archive:
            folder, _, name = member.name.rpartition("/")
            key = f"{folder}/{name.partition('.')[0]}"
            suffix = os.path.splitext(name)[1].lower()
            if member.islnk() or member.issym():
                skipped["links"] += 1
            elif not member.isfile() or name.startswith("."):
                continue  # Such as "._0.png", which macOS adds.
            elif suffix in suffixes and key in found:
                skipped[_DOUBLES] += 1
            elif suffix in suffixes:
                found[key] = member.offset_data, member.size
            elif suffix == ".cls":
                file = archive.extractfile(member)
                text = file.read(64) if file else b""
                classes[key] = text.decode(errors="replace")
            else:
                skipped[suffix] += 1
            # They would be kept, a kilobyte each.
            archive.members = []  # type: ignore[attr-defined]
        # At a damaged header, tarfile ends as if that was the end mark, which
        # only zeros follow.
        tar.seek(archive.offset)
        while following := tar.read(_FOLLOWING):
            if following.strip(b"\0"):
                raise tarfile.ReadError(
                    "damaged, or several joined in one, at byte "
                    f"{archive.offset:,}"
                )
    return Found(
        list(found.values()), [classes.get(key) for key in found], dict(skipped)
    )
