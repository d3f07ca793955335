"""Where the images of a folder are: its files, splits and classes."""

import collections
import dataclasses
import logging
import os
import stat
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from kerassl.data.decode import image_suffixes
from kerassl.data.errors import SplitError

# In any case; of the names of one split, a folder may have one.
_SPLITS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
}
# A vehicle; nothing else to be seen has the name of a split.
_CLASS = "train"
NAMED = 20

_logger = logging.getLogger("kerassl")


@dataclasses.dataclass
class Skipped:
    """What is in a folder beside images; a walk fills it.

    Args:
        suffixes: how many files have each suffix that isn't an image's.
        folders: what went wrong with each folder that can't be listed.
    """

    suffixes: collections.Counter[str] = dataclasses.field(
        default_factory=collections.Counter
    )
    folders: dict[str, str] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        """Returns it in words; nothing if nothing was skipped."""
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
    """Returns the first items in a row, and how many more there are."""
    more = (count or len(items)) - len(items[:NAMED])
    return ", ".join(items[:NAMED]) + (f" and {more:,} more" if more else "")


def find_images(
    folder: Path,
    skipped: Skipped | None = None,
    parents: tuple[tuple[int, int], ...] = (),
) -> Iterator[Path]:
    """Yields what is named like an image, in sorted order.

    Links are followed, but no loops, and hidden files and folders left out.

    Args:
        folder: path.
        skipped: `Skipped` to note down what else is there.
        parents: the folders that it lies in, by device and inode.

    Raises:
        OSError: If a folder can't be listed, unless that isn't permitted.
    """
    skipped = Skipped() if skipped is None else skipped
    suffixes = image_suffixes()
    try:
        status = os.stat(folder)
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries)
    except PermissionError as error:  # Such as `lost+found` of a disk.
        if not parents:
            raise
        skipped.folders[str(folder)] = error.strerror or "not permitted"
        return
    identity = (status.st_dev, status.st_ino)
    if identity in parents:
        return
    for name in names:
        if name.startswith("."):
            continue
        path = folder / name
        if _is_folder(path):
            yield from find_images(path, skipped, (*parents, identity))
        elif path.suffix.lower() in suffixes:
            yield path
        else:
            skipped.suffixes[path.suffix.lower()] += 1


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except OSError:  # A broken link; as an image, it can't be read.
        return False


def split_name(name: str) -> str | None:
    """Returns `"train"`, `"test"` or `"validation"`, or `None`."""
    return _SPLITS.get(name.lower())


def split_names(split: str) -> list[str]:
    """Returns a name, then the others of the same split."""
    same = split_name(split)
    others = [name for name, one in _SPLITS.items() if one == same]
    return list(dict.fromkeys([split, *others]))


def pick_split(
    root: Path, files: list[tuple[str, ...]], split: str
) -> tuple[Path, list[tuple[str, ...]], tuple[str, ...] | None]:
    """Finds the images of a split, and the classes.

    Args:
        root: path of the folder.
        files: the parts of each image's path below it.
        split: str.

    Returns:
        The folder of the split, the parts of its images' paths below that, and
        the names of the classes; or `None` for the names if images lie
        directly in it.

    Raises:
        ValueError: If there is no such split, or the folders of splits are
            mixed with other images, or with each other.
    """
    folders = {file[0] for file in files if len(file) > 1}
    splits = {name for name in folders if split_name(name)}
    loose = [file[0] for file in files if len(file) == 1]
    inner = files
    if splits:
        # Whatever lies beside the splits would be trained on with all of them.
        if beside := [*sorted(folders - splits), *loose]:
            nested = any(len(f) > 2 and f[0] in splits for f in files)
            if loose or nested or [s.lower() for s in splits] != [_CLASS]:
                raise ValueError(
                    f"The folder {str(root)!r} has images in {sorted(splits)}, "
                    "which are named like splits, and others beside them: "
                    f"{listed(list(map(repr, beside)))}. Move one or the "
                    "others out, or give the folder of a split itself."
                )
            _logger.warning(
                "In the folder %r, %r is taken for a class, as %s are.",
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
                f"split={split!r}: {names}. Leave one of them there."
            )
        # Over all splits, so that a label means the same in each. A split
        # without labels has images directly in it.
        plain = {file[0] for file in files if len(file) == 2}
        inner = [file[1:] for file in files if file[0] not in plain]
        files = [file[1:] for file in files if file[0] == names[0]]
        root = root / names[0]
    elif wanted != "train":
        raise SplitError(
            f"The folder {str(root)!r} isn't divided into train/ and test/ (or "
            f"validation/), so that all its images are the split 'train'. "
            f"Received: split={split!r}"
        )
    loose = [file[0] for file in files if len(file) == 1]
    if not loose:
        return root, files, tuple(sorted({file[0] for file in inner}))
    if len(loose) < len(files):
        _logger.warning(
            "No image in %r has a label, though there are folders: %s "
            "directly in it.",
            str(root),
            f"{loose[0]!r} lies"
            if len(loose) == 1
            else f"{loose[0]!r} and {len(loose) - 1:,} more lie",
        )
    return root, files, None


def warn_of_empty(root: Path, used: Collection[str]) -> None:
    """Names the first-level folders that have no images.

    Args:
        root: path.
        used: the names of those that have.
    """
    names = sorted(
        entry.name
        for entry in os.scandir(root)
        if not entry.name.startswith(".") and _is_folder(root / entry.name)
    )
    empty = [repr(name) for name in names if name not in used]
    if empty:
        _logger.warning(
            "Classes without images in %r: %s", str(root), listed(empty)
        )
