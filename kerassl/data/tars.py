"""Images in tar files, as WebDataset writes them."""

import glob
import logging
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kerassl.data.arrays import parse_size
from kerassl.data.decode import image_suffixes
from kerassl.data.errors import SplitError
from kerassl.data.files import Skipped, number_classes, split_name
from kerassl.data.photos import DEFAULT_SIZE, Photos
from kerassl.data.records import Ranges

_logger = logging.getLogger("kerassl")


def load_tars(
    pattern: str,
    split: str,
    image_size: int | tuple[int, int] | None,
    limit: int | None,
) -> tuple[Photos, tuple[str, ...] | None]:
    """Finds the images in tar files.

    Args:
        pattern: path of a tar file, or of several, with `*`, `?` and `[...]`.
        split: str. All images are the split `"train"`.
        image_size: int, `(height, width)`, or `None` for 224.
        limit: int, how many images to keep, evenly spaced; or `None` for all.

    Returns:
        A pair: the photos, and the class names or `None`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a file is not a tar file, or holds no image, or there is
            no such split.
    """
    if split_name(split) != "train":
        raise SplitError(
            f"All images of tar files are the split 'train'. Received: "
            f"split={split!r}. Name the files of each split instead, such as "
            "'train-*.tar'."
        )
    size = parse_size(DEFAULT_SIZE if image_size is None else image_size)
    names = sorted(glob.glob(str(Path(pattern).expanduser())))
    if not names:
        raise FileNotFoundError(f"There is no file {pattern!r}.")
    records, texts, left_out = index_tars([Path(name) for name in names])
    skipped = Skipped()
    skipped.suffixes.update(left_out)
    if not len(records):
        raise ValueError(
            f"{pattern!r} holds no image, such as .jpg or .png. It holds "
            f"{skipped or 'no file'}."
        )
    classes, labels = _classes(texts)
    photos = Photos(records, size, labels)
    if words := str(skipped):
        _logger.warning("Left out of %r: %s", pattern, words)
        photos.notes.append(f"left out: {words}")
    return photos.limited(limit), classes


def _classes(
    texts: list[bytes | None],
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
    found = [(text or b"").decode(errors="replace").strip() for text in texts]
    return number_classes(found)


def index_tars(
    paths: Sequence[Path],
) -> tuple[Ranges, list[bytes | None], dict[str, int]]:
    """Finds the images in tar files, as WebDataset writes them.

    Members whose paths are equal up to the first dot of the name belong
    together: an image, and in `.cls` its class. Only headers are read.

    Args:
        paths: the tar files, not compressed.

    Returns:
        A tuple: the images as `Ranges`; the content of each one's `.cls`, or
        `None`; and the number of other members, by suffix.

    Raises:
        ValueError: if a file is not a tar file, or compressed.
    """
    suffixes = image_suffixes()
    rows: list[tuple[int, int, int]] = []
    labels: list[bytes | None] = []
    left_out: dict[str, int] = {}
    for number, path in enumerate(paths):
        found: dict[str, tuple[int, int, int]] = {}
        classes: dict[str, bytes] = {}
        try:
            with tarfile.open(path, "r:") as archive:
                for member in archive:
                    if not member.isfile():
                        continue
                    folder, _, name = member.name.rpartition("/")
                    key, _, rest = name.partition(".")
                    suffix = f".{rest.rpartition('.')[2].lower()}"
                    key = f"{folder}/{key}"
                    if suffix in suffixes and key not in found:
                        found[key] = number, member.offset_data, member.size
                    elif suffix == ".cls":
                        file = archive.extractfile(member)
                        classes[key] = file.read(64) if file else b""
                    else:
                        left_out[suffix] = left_out.get(suffix, 0) + 1
        except tarfile.TarError as error:
            raise ValueError(
                f"{str(path)!r} is not a readable tar file, not compressed: "
                f"{error}"
            ) from error
        rows += found.values()
        labels += [classes.get(key) for key in found]
    table = np.array(rows, "int64").reshape(-1, 3)
    return Ranges(paths, table), labels, left_out
