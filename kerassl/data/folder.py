"""Folders of images, decoded at once or on demand."""

import collections
import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Self, TypeAlias

import numpy as np

from kerassl.data.arrays import parse_size
from kerassl.data.decode import (
    decode_image,
    decode_opened,
    open_image,
    reductions,
)
from kerassl.data.files import (
    NAMED,
    Skipped,
    find_images,
    listed,
    pick_split,
    warn_of_empty,
)
from kerassl.data.threads import Threads

DEFAULT_SIZE = 224
_IN_MEMORY_BYTES = 2**30
_CHECKED_FILES = 20_000

_logger = logging.getLogger("kerassl")

# Selects some images.
Index: TypeAlias = int | np.integer | slice | Sequence[int] | np.ndarray


class ImageFolder:
    """Image files that look like one uint8 array of shape `(N, H, W, 3)`.

    An index, a slice or an array of indices decodes those images, in threads.
    If an image can't be decoded, the log names it and the next readable one
    takes its place, of the same class if possible.

    Folders can be copied, pickled, and used in forked processes, such as the
    workers of a PyTorch `DataLoader`.

    Args:
        paths: the image files.
        size: tuple `(height, width)`, to which images are resized.
        labels: int array of shape `(N,)`, or `None`.

    Example:
    ```python
    folder = ImageFolder(Path("photos").glob("*.jpg"), size=(96, 96))
    folder[:8]  # uint8 (8, 96, 96, 3)
    ```
    """

    dtype = np.dtype("uint8")
    ndim = 4

    def __init__(
        self,
        paths: Iterable[str | Path],
        size: tuple[int, int],
        labels: np.ndarray | None = None,
    ):
        self.paths = [Path(path) for path in paths]
        self.size = size
        self.labels = labels
        self._stand_ins: dict[int, int] = {}
        self._threads = Threads()

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape `(N, height, width, 3)`."""
        return (len(self.paths), *self.size, 3)

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self.paths)

    def __getitem__(self, index: Index) -> np.ndarray:
        """Returns one image, or an array of the selected images."""
        indices = np.arange(len(self))[index]
        if indices.ndim == 0:
            return self.read(indices[None])[0][0]
        return self.read(indices)[0]

    def select(self, index: slice | Sequence[int] | np.ndarray) -> Self:
        """Returns a folder with some of the images, without decoding them."""
        indices = np.arange(len(self))[index]
        return type(self)(
            [self.paths[i] for i in indices],
            self.size,
            None if self.labels is None else self.labels[indices],
        )

    def read(
        self, indices: Sequence[int] | np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Decodes images.

        Args:
            indices: int array of shape `(n,)`.

        Returns:
            A pair: images `(n, H, W, 3)`, and the index of each. The indices
            differ from `indices` where an image couldn't be read and another
            one replaces it.

        Raises:
            ValueError: if no image of the folder can be read any more.
        """
        images = np.empty((len(indices), *self.size, 3), "uint8")
        used = np.array(indices)

        def decode(position: int) -> None:
            path = self.paths[indices[position]]
            images[position] = decode_image(path, self.size)

        errors = self._attempt(decode, range(len(indices)))
        for position, error in errors.items():
            bad = int(indices[position])
            if bad not in self._stand_ins:
                _logger.warning(
                    "Can't read image %r (%s); another one replaces it.",
                    str(self.paths[bad]),
                    error,
                )
            images[position], used[position] = self._read_stand_in(bad)
        return images, used

    def _attempt(
        self, task: Callable[[int], None], numbers: Iterable[int]
    ) -> dict[int, str]:
        """Runs a task for each number; returns error messages by number."""

        def attempt(number: int) -> tuple[int, str] | None:
            try:
                task(number)
            # Pillow may raise almost anything on a damaged file.
            except Exception as error:
                return int(number), _describe(error)
            return None

        numbers = list(numbers)
        # One image needs no thread; `DataLoader` workers read one at a time.
        run = map if len(numbers) == 1 else self._threads.map
        return dict(filter(None, run(attempt, numbers)))

    def _read_stand_in(self, bad: int) -> tuple[np.ndarray, int]:
        others = np.roll(np.arange(len(self)), -bad - 1)[:-1]
        if self.labels is not None:
            same = self.labels[others] == self.labels[bad]
            others = np.concatenate([others[same], others[~same]])
        if bad in self._stand_ins:
            others = np.append(self._stand_ins[bad], others)
        for other in others.tolist():
            if other in self._stand_ins:
                continue  # Unreadable too.
            try:
                image = decode_image(self.paths[other], self.size)
            except Exception:
                continue
            self._stand_ins[bad] = other
            return image, other
        raise ValueError(
            f"None of the {len(self):,} images can be read any more. The first "
            f"is {str(self.paths[0])!r}"
        )

    def decode_all(self) -> tuple[np.ndarray, dict[int, str]]:
        """Decodes all images, and logs what they lose.

        Returns:
            A pair: the images, and a dict of error messages by index.
        """
        images = np.empty(self.shape, "uint8")
        found: dict[int, list[str]] = {}

        def decode(index: int) -> None:
            with open_image(self.paths[index], self.size) as file:
                found[index] = reductions(file)
                images[index] = decode_opened(file, self.size)

        errors = self._attempt(decode, range(len(self)))
        self._log_reduced(found.values())
        return images, errors

    def check_headers(self) -> tuple[int, dict[int, str]]:
        """Reads the headers of all images, or of a fixed sample of many.

        Logs what the images will lose.

        Returns:
            A pair: the number of headers read, and errors as in `decode_all`.
        """
        indices = np.arange(len(self))
        if len(self) > _CHECKED_FILES:
            rng = np.random.default_rng(0)
            indices = rng.choice(len(self), _CHECKED_FILES, replace=False)
        found: dict[int, list[str]] = {}

        def check(index: int) -> None:
            with open_image(self.paths[index], self.size) as file:
                found[index] = reductions(file)

        errors = self._attempt(check, indices)
        self._log_reduced(found.values())
        return len(indices), errors

    def _log_reduced(self, found: Iterable[list[str]]) -> None:
        counts = collections.Counter(what for some in found for what in some)
        if counts:
            words = [f"{n:,} with {what}" for what, n in counts.most_common()]
            _logger.warning(
                "Images become RGB of 8 bits a channel: %s", ", ".join(words)
            )


def load_folder(
    path: str | Path,
    split: str,
    image_size: int | tuple[int, int] | None,
    limit: int | None,
    max_unreadable: float,
) -> tuple[
    np.ndarray | ImageFolder,
    np.ndarray | None,
    tuple[str, ...] | None,
    tuple[Path, ...],
]:
    """Finds the images of a folder, and decodes them if they are few.

    Images are the files with a suffix that Pillow reads (in any case), in
    sorted order and at any depth, except hidden files. The first-level folder
    of an image is its class; if any image is directly in `path`, there are no
    classes. If all first-level folders are named train, training, test,
    testing, val, valid or validation (in any case), they are splits, which
    contain the classes. The log counts what was left out.

    Args:
        path: path of the folder.
        split: `"train"`, `"test"` or `"validation"`. Without folders for
            splits, all images are the split `"train"`.
        image_size: int, `(height, width)`, or `None` for 224.
        limit: int, how many images to keep, evenly spaced in sorted order so
            that all classes remain; or `None` for all.
        max_unreadable: float in [0, 1], the share of unreadable images to
            tolerate.

    Returns:
        A tuple: images, labels, class names and the images' paths. Labels and
        class names may be `None`.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if it can't be listed, has no images, lacks this split, has
            too many unreadable images, or mixes splits with other images.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"There is no folder {str(path)!r}.")
    size = parse_size(DEFAULT_SIZE if image_size is None else image_size)
    skipped = Skipped()
    try:
        files = [f.relative_to(root).parts for f in find_images(root, skipped)]
    except OSError as error:
        raise ValueError(
            f"The folder {str(path)!r} can't be listed: {error}"
        ) from error
    if not files:
        raise ValueError(
            f"The folder {str(path)!r} holds no image, such as .jpg, .png, "
            f".webp or .tif. It holds {skipped or 'no file'}."
        )
    if words := str(skipped):
        _logger.warning("Left out of the folder %r: %s", str(path), words)
    root, files, classes = pick_split(root, files, split)
    labels = None
    if classes is not None:
        warn_of_empty(root, {file[0] for file in files})
        numbers = {name: number for number, name in enumerate(classes)}
        labels = np.array([numbers[file[0]] for file in files], "int64")
    folder = ImageFolder([root.joinpath(*f) for f in files], size, labels)
    if limit is not None and limit < len(folder):
        # The first images would all have one class.
        folder = folder.select(np.arange(limit) * len(folder) // limit)

    if np.prod(folder.shape) <= _IN_MEMORY_BYTES:
        decoded, errors = folder.decode_all()
        checked = len(folder)
    else:
        decoded = None
        checked, errors = folder.check_headers()
    _judge_unreadable(path, folder, classes, checked, errors, max_unreadable)
    images: np.ndarray | ImageFolder = folder if decoded is None else decoded
    if errors:
        keep = np.setdiff1d(np.arange(len(folder)), list(errors))
        folder = folder.select(keep)
        images = folder if decoded is None else decoded[keep]
    return images, folder.labels, classes, tuple(folder.paths)


def _judge_unreadable(
    path: str | Path,
    folder: ImageFolder,
    classes: tuple[str, ...] | None,
    checked: int,
    errors: dict[int, str],
    max_unreadable: float,
) -> None:
    """Logs the unreadable images, or raises if they are too many."""
    if not errors:
        return
    bad = sorted(errors)
    named = listed(
        [f"{str(folder.paths[i])!r} ({errors[i]})" for i in bad[:NAMED]],
        len(errors),
    )
    share = len(errors) / checked
    found = (
        f"{len(errors):,} of {checked:,} images ({share:.1%}) in {str(path)!r} "
        "can't be read"
    )
    if folder.labels is not None and classes is not None:
        lost = np.setdiff1d(folder.labels, np.delete(folder.labels, bad))
        if lost.size:
            names = listed([repr(classes[label]) for label in lost])
            found += f", so no image is left of the class {names}"
    if share > max_unreadable or len(errors) == checked:
        raise ValueError(
            f"{found}, more than max_unreadable={max_unreadable:.1%}. Repair "
            "or delete them, or raise `max_unreadable` (--max-unreadable): "
            f"{named}"
        )
    _logger.warning("%s and are skipped: %s", found, named)


def _describe(error: Exception) -> str:
    # One line is enough: Pillow repeats the path.
    text = str(error).split("\n")[0][:120]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
