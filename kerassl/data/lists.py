"""Images whose paths are in a text file or a table."""

import collections
import csv
import logging
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kerassl.data.arrays import parse_size
from kerassl.data.errors import SplitError
from kerassl.data.files import listed, number_classes, split_name
from kerassl.data.folder import ImageFolder
from kerassl.data.photos import DEFAULT_SIZE

_logger = logging.getLogger("kerassl")


class _Row(NamedTuple):
    """A row of a table, and the line in which it ends."""

    line: int
    path: str
    label: str = ""
    split: str = ""


def load_list(
    path: str | Path,
    split: str,
    image_size: int | tuple[int, int] | None,
    limit: int | None,
) -> tuple[ImageFolder, tuple[str, ...] | None]:
    """Reads the paths of images.

    A `.txt` file has a path in each line. A `.csv` file has a header with the
    column `path`, and optionally `label` and `split`; other columns are
    ignored. Paths are relative to the file's folder. Rows of splits with other
    names than `"train"`, `"test"` and `"validation"` are left out, unless that
    name is `split`.

    Args:
        path: path of the file.
        split: str; without a column `split` all images are `"train"`.
        image_size: int, `(height, width)`, or `None` for 224.
        limit: int, how many images to keep, evenly spaced; or `None` for all.

    Returns:
        A pair: the images, and the class names or `None`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is not UTF-8, lacks the column `path` or some
            labels, has quotes that don't enclose a whole value, holds no path,
            or lacks this split.
    """
    path = Path(os.path.expanduser(path))
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {str(path)!r}.")
    size = parse_size(DEFAULT_SIZE if image_size is None else image_size)
    try:
        rows, empty = _rows(path)
    except UnicodeDecodeError as error:
        raise ValueError(f"{str(path)!r} can't be read: {error}") from error
    if not rows:
        raise ValueError(f"{str(path)!r} holds no path of an image.")
    classes = labels = None
    if any(row.label for row in rows):
        for row in rows:
            if not row.label:
                raise ValueError(
                    f"{str(path)!r} has labels, but none in line {row.line}. "
                    "Give all images a label, or none."
                )
        # Over all splits, so that a label means the same in each.
        classes, labels = number_classes([row.label for row in rows])
    chosen, others = _of_split(path, rows, split)
    files = [path.parent / rows[i].path for i in chosen]
    if labels is not None:
        labels = labels[chosen]
    images = ImageFolder(files, size, labels)
    notes = []
    if empty:
        notes.append(f"left out: {empty:,} lines without a path")
    if others:
        words = [f"{name!r} ({count:,})" for name, count in others.items()]
        notes.append(f"left out: lines of other splits: {listed(words)}")
    for note in notes:
        _logger.warning("%r: %s", str(path), note)
    images.notes += notes
    return images.limited(limit), classes


def _rows(path: Path) -> tuple[list[_Row], int]:
    """Returns the rows with a path, and how many of a table lack it."""
    # With "-sig", since spreadsheets write a byte order mark.
    with open(path, encoding="utf-8-sig", newline="") as file:
        if path.suffix.lower() != ".csv":
            lines = enumerate((line.strip() for line in file), 1)
            return [_Row(number, line) for number, line in lines if line], 0
        # Strict, since an open quote would take in all rows that follow.
        table = csv.DictReader(file, skipinitialspace=True, strict=True)
        rows: list[_Row] = []
        begin = 1
        try:
            names = [name.strip() for name in table.fieldnames or ()]
            if "path" not in names:
                raise ValueError(
                    f"{str(path)!r} needs a column 'path' in its first line. "
                    f"Found: {names}"
                )
            table.fieldnames = names
            begin = table.line_num + 1
            for row in table:
                values = [(row.get(n) or "").strip() for n in _Row._fields[1:]]
                rows.append(_Row(table.line_num, *values))
                begin = table.line_num + 1
        except csv.Error as error:
            raise ValueError(
                f"{str(path)!r} can't be read from line {begin} on ({error}). "
                "Quotes must enclose a whole value."
            ) from error
        found = [row for row in rows if row.path]
        return found, len(rows) - len(found)


def _of_split(
    path: Path, rows: list[_Row], split: str
) -> tuple[np.ndarray, dict[str, int]]:
    """Returns a split's rows, and how many are of splits with other names."""
    given = [row.split or "train" for row in rows]
    named = [split_name(name) or name for name in given]
    wanted = split_name(split) or split
    chosen = np.flatnonzero([name == wanted for name in named])
    if not len(chosen):
        raise SplitError(
            f"{str(path)!r} has no images for split={split!r}. It has them "
            f"for {sorted(set(given))}."
        )
    counts = collections.Counter(named)
    known = {wanted, "train", "test", "validation"}
    return chosen, {n: counts[n] for n in sorted(counts) if n not in known}
