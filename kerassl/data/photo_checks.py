"""Which photos can be read, and what they lose."""

import collections
import logging
import math
import re

import numpy as np

from kerassl.data.decoders import RGB
from kerassl.data.files import NAMED, listed
from kerassl.data.photos import Photos
from kerassl.data.row_groups import RowGroups

_IN_MEMORY_BYTES = 2**30
_CHECKED_FILES = 20_000
_CHECKED_REMOTE = 1000

_logger = logging.getLogger("kerassl")


def readable(
    photos: Photos,
    name: str,
    classes: tuple[str, ...] | None = None,
    max_unreadable: float = 0.0,
) -> Photos:
    """Returns the photos that can be read, and logs what they lose.

    If few, they are decoded and kept in memory, resized; of others, the
    headers are read.

    Args:
        photos: `Photos`.
        name: str, what messages call the source.
        classes: tuple of the names of the classes, or `None`.
        max_unreadable: float in [0, 1], the share of unreadable images to
            tolerate.

    Raises:
        ValueError: if more images are unreadable.
    """
    decoded = None
    if math.prod(photos.shape) * photos.dtype.itemsize <= _IN_MEMORY_BYTES:
        decoded, errors, lost = decode_all(photos)
        count = len(photos)
    else:
        count, errors, lost = check_headers(photos)
    notes = [
        *_lost(photos, lost, count),
        *_judge(photos, name, classes, count, errors, max_unreadable),
    ]
    kept = photos.with_notes(notes, decoded)
    if errors:
        indices = np.arange(len(photos))
        kept = kept.select(np.setdiff1d(indices, list(errors)))
    return kept


def decode_all(
    photos: Photos,
) -> tuple[np.ndarray, dict[int, str], dict[int, list[str]]]:
    """Returns all images, and errors and what they lose by index."""
    images = np.empty(photos.shape, photos.dtype)
    found: dict[int, list[str]] = {}

    def decode(index: int) -> None:
        source = photos.records.source(index)
        images[index], found[index] = photos.decoder.checked(
            source, photos.size
        )

    errors = photos.attempt(decode, range(len(photos)))
    return images, errors, found


def check_headers(
    photos: Photos,
) -> tuple[int, dict[int, str], dict[int, list[str]]]:
    """Reads the headers of all images, or of a fixed sample of many.

    Returns:
        A tuple: the number of headers read; errors, and what the images
        will lose, as in `decode_all`.
    """
    indices = np.arange(len(photos))
    most = _CHECKED_REMOTE if photos.records.is_remote else _CHECKED_FILES
    if len(photos) > most and isinstance(photos.records, RowGroups):
        indices = photos.records.sample(most)
    elif len(photos) > most:
        rng = np.random.default_rng(0)
        indices = rng.choice(len(photos), most, replace=False)
    found: dict[int, list[str]] = {}

    def check(index: int) -> None:
        source = photos.records.source(index)
        found[index] = photos.decoder.losses(source, photos.size)

    errors = photos.attempt(check, indices.tolist())
    return len(indices), errors, found


def _lost(
    photos: Photos, found: dict[int, list[str]], checked: int
) -> list[str]:
    """Logs what images lose; returns the same as a note, if any do."""
    counts = collections.Counter(w for some in found.values() for w in some)
    if not counts:
        return []
    what = "Parts of images aren't read"
    if isinstance(photos.decoder, RGB):
        what = "Images become RGB of 8 bits a channel"
    words = [f"{n:,} with {name}" for name, n in counts.most_common()]
    note = f"{what}: {', '.join(words)}"
    if checked < len(photos):
        note += f", of {checked:,} that were looked at"
    _logger.warning("%s", note)
    return [note]


def _judge(
    photos: Photos,
    name: str,
    classes: tuple[str, ...] | None,
    checked: int,
    errors: dict[int, str],
    max_unreadable: float,
) -> list[str]:
    """Logs the unreadable images, or raises if they are too many."""
    if not errors:
        return []
    bad = sorted(errors)
    named = listed(
        [f"{photos.records.name(i)!r} ({errors[i]})" for i in bad[:NAMED]],
        len(errors),
    )
    share = len(errors) / checked
    found = (
        f"{len(errors):,} of {checked:,} images ({share:.1%}) in {name!r} "
        "can't be read"
    )
    if photos.labels is not None and classes is not None:
        lost = np.setdiff1d(photos.labels, np.delete(photos.labels, bad))
        lost = lost[lost >= 0]  # -1 means no label.
        if lost.size:
            names = listed([repr(classes[label]) for label in lost])
            found += f", so no image is left of the class {names}"
    if len(errors) == checked:
        raise ValueError(f"{found}: {named}")
    if share > max_unreadable:
        raise ValueError(
            f"{found}, more than max_unreadable={max_unreadable:.1%}. "
            "Repair or delete them, or raise `max_unreadable` "
            f"(--max-unreadable): {named}"
        )
    _logger.warning("%s and are skipped: %s", found, named)
    # Without the names of files in them, or "<_io.BytesIO object at ...>".
    reasons = collections.Counter(
        re.split(" ['<]", e)[0] for e in errors.values()
    )
    kinds = [f"{n:,} {reason}" for reason, n in reasons.most_common()]
    return [f"{found} and are skipped, by reason: {listed(kinds)}"]
