"""Folders of images, decoded once or as they are needed."""

import collections
import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

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


class ImageFolder:
    """Image files that look like one uint8 array of shape `(N, H, W, 3)`.

    An index, a slice or an array of indices decodes those images, in threads.
    An image that can't be decoded is named in the log and replaced by the
    next readable one, of its own class if there is one.

    It can be copied, pickled, and used in forked processes, such as the
    workers of a PyTorch `DataLoader`.

    Args:
        paths: The image files.
        size: The `(height, width)` that images are resized to.
        labels: Integers of shape `(N,)`, or `None`.
    """

    dtype = np.dtype("uint8")
    ndim = 4

    def __init__(
        self,
        paths: Iterable[str | Path],
        size: tuple[int, int],
        labels: np.ndarray | None = None,
    ):
        """Opens no file yet."""
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

    def __getitem__(self, index: Any) -> np.ndarray:
        """Returns one image, or an array of those that `index` selects."""
        indices = np.arange(len(self))[index]
        if indices.ndim == 0:
            return self.read(indices[None])[0][0]
        return self.read(indices)[0]

    def select(self, index: Any) -> "ImageFolder":
        """Returns an `ImageFolder` of some of the images, still undecoded."""
        indices = np.arange(len(self))[index]
        return ImageFolder(
            [self.paths[i] for i in indices],
            self.size,
            None if self.labels is None else self.labels[indices],
        )

    def read(
        self, indices: Sequence[int] | np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Decodes images.

        Args:
            indices: An array of integers.

        Returns:
            A pair: the images, and for each of them the index of the image
            that it is. This differs from `indices` where an image couldn't be
            read and another stands in for it.

        Raises:
            ValueError: If none of all the images can be read any more.
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
                    "Can't read image %r (%s); another stands in for it.",
                    str(self.paths[bad]),
                    error,
                )
            images[position], used[position] = self._read_stand_in(bad)
        return images, used

    def _attempt(
        self, task: Callable[[int], None], numbers: Iterable[int]
    ) -> dict[int, str]:
        """Does a task for each number; returns what went wrong, by number."""

        def attempt(number: int) -> tuple[int, str] | None:
            try:
                task(number)
            # Pillow raises nearly anything on a damaged file.
            except Exception as error:
                return int(number), _describe(error)
            return None

        numbers = list(numbers)
        # One image needs no thread, as in the workers of a `DataLoader`.
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
                continue  # It is bad itself.
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
        """Decodes every image, and logs how some of them are reduced.

        Returns:
            A pair: the array of images, and the errors as a dictionary from
            the index of an image to what is wrong with it.
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
        """Reads the header of each image, of a fixed sample if there are many.

        It logs how some of them will be reduced.

        Returns:
            A pair: how many were read, and the errors as in `decode_all`.
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
    "np.ndarray | ImageFolder",
    np.ndarray | None,
    tuple[str, ...] | None,
    tuple[Path, ...],
]:
    """Finds the images of a folder and decodes them if they are few.

    Images are those with a suffix that Pillow reads (in any case), in sorted
    order, at any depth; hidden files are left out. The first-level folder of
    an image is its class. If any image lies directly in `path`, none has one.
    When all first-level folders are called train, training, test, testing,
    val, valid or validation (in any case), they are splits, with the classes
    inside them. What is left out is counted in the log.

    Args:
        path: The folder.
        split: `"train"`, `"test"` or `"validation"`. Without folders for
            splits, all images are the split `"train"`.
        image_size: An integer, `(height, width)`, or `None` for 224.
        limit: `None`, or how many images to keep, evenly spaced in the sorted
            order, so that all classes stay.
        max_unreadable: The share of unreadable images that is tolerated.

    Returns:
        Images, labels, class names and the images' paths; labels and class
        names may be `None`.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it can't be listed, has no images, not this split, or
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
        # The first ones would all be of one class.
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
            found += f", so that no image is left of the class {names}"
    if share > max_unreadable or len(errors) == checked:
        raise ValueError(
            f"{found}, more than max_unreadable={max_unreadable:.1%}. Repair "
            "or delete them, or raise `max_unreadable` (--max-unreadable): "
            f"{named}"
        )
    _logger.warning("%s and are skipped: %s", found, named)


def _describe(error: Exception) -> str:
    # Pillow repeats the path in its messages; one line is enough.
    text = str(error).split("\n")[0][:120]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
