"""The files, splits and classes of an image folder."""

import collections
import dataclasses
import logging
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from kerassl.data.decode import image_suffixes
from kerassl.data.errors import SplitError
from kerassl.data.image_files import SUFFIXES

# In any case. A folder may use one of the names for a split.
_SPLITS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
}
# The one name of a split that is also a thing to photograph.
_CLASS = "train"
NAMED = 20

_logger = logging.getLogger("kerassl")


@dataclasses.dataclass
class Skipped:
    """What `find_images` skipped in a folder.

    Args:
        suffixes: number of files by suffix, of suffixes that aren't images'.
        folders: error messages by folder, of folders that can't be listed.
    """

    suffixes: collections.Counter[str] = dataclasses.field(
        default_factory=collections.Counter
    )
    folders: dict[str, str] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        """Describes what was skipped; empty if nothing was."""
        words = []
        if self.suffixes:
            kinds = [
                f"{count:,} {suffix or 'without a suffix'}"
                for suffix, count in self.suffixes.most_common(NAMED)
            ]
            words.append(
                f"files that can't be read as images, by type "
                f"({self.suffixes.total():,} in all): "
                f"{listed(kinds, len(self.suffixes))}"
            )
        if self.folders:
            kinds = [f"{k!r} ({v})" for k, v in self.folders.items()]
            words.append(f"folders that can't be listed: {listed(kinds)}")
        return "; ".join(words)


def listed(items: Sequence[str], count: int | None = None) -> str:
    """Joins the first items with commas, and adds how many more there are.

    Args:
        items: strings.
        count: int, the number of all items if `items` has only the first.
    """
    more = (count or len(items)) - len(items[:NAMED])
    return ", ".join(items[:NAMED]) + (f" and {more:,} more" if more else "")


# Device, inode, and when the content and the entry changed, in nanoseconds.
Stamp: TypeAlias = tuple[int, int, int, int]


def stamp(folder: str | Path) -> Stamp:
    """Returns what changes when anything in a folder is added or removed."""
    status = os.stat(folder)
    return (
        status.st_dev,
        status.st_ino,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def find_images(
    root: str | Path,
    skipped: Skipped | None = None,
    folders: dict[str, Stamp] | None = None,
) -> Iterator[str]:
    """Yields the paths of files with an image's suffix, in sorted order.

    Links are followed, except in loops. Hidden files and folders are left out.

    Args:
        root: path of a folder.
        skipped: `Skipped`, filled with everything else that is there.
        folders: dict, filled with the paths of the folders that were listed.

    Yields:
        Paths relative to `root`.

    Raises:
        OSError: if `root` can't be listed, or a folder inside it for another
            reason than missing permission.
    """
    skipped = Skipped() if skipped is None else skipped
    folders = {} if folders is None else folders
    suffixes = image_suffixes().union(SUFFIXES)

    def find(
        folder: str, parents: tuple[tuple[int, int], ...]
    ) -> Iterator[str]:
        path = os.path.join(root, folder)
        try:
            # Before its content: a change in between shows later.
            folders[folder] = stamp(path)
            with os.scandir(path) as found:
                entries = sorted((e.name, _is_folder(e)) for e in found)
        except PermissionError as error:  # Such as a disk's `lost+found`.
            if not parents:
                raise
            skipped.folders[path] = error.strerror or "not permitted"
            return
        identity = folders[folder][:2]
        if identity in parents:
            return
        for name, is_folder in entries:
            if name.startswith("."):
                continue
            inner = f"{folder}{os.sep}{name}" if folder else name
            if is_folder:
                yield from find(inner, (*parents, identity))
                continue
            suffix = os.path.splitext(name)[1].lower()
            if suffix in suffixes:
                yield inner
            else:
                skipped.suffixes[suffix] += 1

    return find("", ())


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # A broken link counts as an unreadable image.
        return False


def split_name(name: str) -> str | None:
    """Returns the split that a name means, or `None` for other names.

    Args:
        name: str, such as `"Training"`.

    Returns:
        `"train"`, `"test"`, `"validation"` or `None`.
    """
    return _SPLITS.get(name.lower())


def split_names(split: str) -> list[str]:
    """Returns the name of a split, then its other names."""
    same = split_name(split)
    others = [name for name, one in _SPLITS.items() if one == same]
    return list(dict.fromkeys([split, *others]))


def check_is_train(split: str, kind: str, example: str) -> None:
    """Raises a `SplitError` for another split than `"train"`.

    Args:
        split: str.
        kind: str, what the message calls the files.
        example: str, a pattern for the files of one split.
    """
    if split_name(split) != "train":
        raise SplitError(
            f"All images of {kind} are the split 'train'. Received: "
            f"split={split!r}. Name the files of each split instead, such as "
            f"{example!r}."
        )


def pick_split(
    root: Path, files: list[tuple[str, ...]], split: str
) -> tuple[Path, list[tuple[str, ...]], tuple[str, ...] | None]:
    """Selects the images of a split, and finds the classes.

    Args:
        root: path of the folder.
        files: the path of each image relative to `root`, as tuples of parts.
        split: str.

    Returns:
        A tuple: the folder of the split; the paths of its images relative to
        that; and the names of the classes, or `None` if images are directly in
        that folder.

    Raises:
        SplitError: if there is no such split.
        ValueError: if the folders of splits are mixed with other images, or
            several have the same split.
    """
    folders = {file[0] for file in files if len(file) > 1}
    splits = {name for name in folders if split_name(name)}
    loose = [file[0] for file in files if len(file) == 1]
    inner = files
    if splits:
        # Taken as a class, a split would be trained on.
        if beside := [*sorted(folders - splits), *loose]:
            nested = any(len(f) > 2 and f[0] in splits for f in files)
            if loose or nested or [s.lower() for s in splits] != [_CLASS]:
                raise ValueError(
                    f"The folder {str(root)!r} has images in {sorted(splits)}, "
                    "which are named like splits, and others next to them: "
                    f"{listed(list(map(repr, beside)))}. Move one or the "
                    "other out, or give the folder of a split itself."
                )
            _logger.warning(
                "In the folder %r, %r counts as a class, like %s.",
                str(root),
                *sorted(splits),
                listed(list(map(repr, beside))),
            )
            splits = set()
    wanted = split_name(split)
    if splits:
        names = [name for name in sorted(splits) if split_name(name) == wanted]
        if not names:
            raise SplitError(
                f"The folder {str(root)!r} has no images for split={split!r}. "
                f"It has them for {sorted(splits)}."
            )
        if len(names) > 1:
            raise ValueError(
                f"The folder {str(root)!r} has several folders for "
                f"split={split!r}: {names}. Keep only one of them."
            )
        # Classes are numbered over all splits, so that a label means the same
        # in each. A split without labels has images directly in it.
        plain = {file[0] for file in files if len(file) == 2}
        inner = [file[1:] for file in files if file[0] not in plain]
        files = [file[1:] for file in files if file[0] == names[0]]
        root = root / names[0]
    elif wanted != "train":
        raise SplitError(
            f"The folder {str(root)!r} isn't divided into train/ and test/ (or "
            f"validation/), so all its images are the split 'train'. "
            f"Received: split={split!r}"
        )
    loose = [file[0] for file in files if len(file) == 1]
    if not loose:
        return root, files, tuple(sorted({file[0] for file in inner}))
    if len(loose) < len(files):
        _logger.warning(
            "No image in %r has a label, although there are folders: %s "
            "directly in it.",
            str(root),
            f"{loose[0]!r} is"
            if len(loose) == 1
            else f"{loose[0]!r} and {len(loose) - 1:,} more are",
        )
    return root, files, None


def number_classes(names: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """Numbers the classes of images, in sorted order.

    Args:
        names: the class of each image. Whole numbers are sorted as numbers,
            and -1 among them means no label, as in TFDS.

    Returns:
        A pair: the names of the classes, and the label of each image, int64.
    """
    known = set(names)
    others = known - {"-1"}
    numeric = all(name.isdecimal() for name in others)
    classes = sorted(others if numeric else known)
    if numeric:
        classes.sort(key=int)  # "07" stays before "7".
    numbers = {name: number for number, name in enumerate(classes)}
    numbers.setdefault("-1", -1)
    labels = np.array([numbers[name] for name in names], "int64")
    return tuple(classes), labels


def warn_of_empty(root: Path, used: Collection[str]) -> None:
    """Logs the first-level folders without images.

    Args:
        root: path.
        used: the names of the first-level folders with images.
    """
    names = sorted(
        entry.name
        for entry in os.scandir(root)
        if not entry.name.startswith(".") and _is_folder(entry)
    )
    empty = [repr(name) for name in names if name not in used]
    if empty:
        _logger.warning(
            "Classes without images in %r: %s", str(root), listed(empty)
        )
