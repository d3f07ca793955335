"""Folders of images, decoded once or as they are needed."""

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from kerassl.data.arrays import parse_size

DEFAULT_SIZE = 224
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_SPLITS = {
    "train": ("train",),
    "test": ("test",),
    "validation": ("validation", "val", "valid"),
}
_SPLITS |= {"val": _SPLITS["validation"], "valid": _SPLITS["validation"]}
_IN_MEMORY_BYTES = 2**30
_CHECKED_FILES = 20_000
_NAMED_FILES = 20

_logger = logging.getLogger("kerassl")


class ImageFolder:
    """Image files that look like one uint8 array of shape `(N, H, W, 3)`.

    An index, a slice or an array of indices decodes those images, in threads.
    An image that can't be decoded is named in the log and replaced by the
    next readable one, of its own class if there is one.

    Args:
        paths: The image files.
        size: The `(height, width)` that images are resized to.
        labels: Integers of shape `(N,)`, or `None`.
    """

    dtype = np.dtype("uint8")
    ndim = 4

    def __init__(self, paths, size, labels=None):
        """Opens no file yet."""
        self.paths = list(paths)
        self.size = size
        self.labels = labels
        self._stand_ins = {}
        self._pool = ThreadPoolExecutor(os.cpu_count())

    @property
    def shape(self):
        """The shape `(N, height, width, 3)`."""
        return (len(self.paths), *self.size, 3)

    def __len__(self):
        """Returns the number of images."""
        return len(self.paths)

    def __getitem__(self, index):
        """Returns one image, or an array of those that `index` selects."""
        indices = np.arange(len(self))[index]
        if indices.ndim == 0:
            return self.read(indices[None])[0][0]
        return self.read(indices)[0]

    def select(self, index):
        """Returns an `ImageFolder` of some of the images, still undecoded."""
        indices = np.arange(len(self))[index]
        return ImageFolder(
            [self.paths[i] for i in indices],
            self.size,
            None if self.labels is None else self.labels[indices],
        )

    def read(self, indices):
        """Decodes images.

        Args:
            indices: An array of integers.

        Returns:
            A pair: the images, and for each of them the index of the image
            that it is. This differs from `indices` where an image couldn't be
            read and another stands in for it.
        """
        images = np.empty((len(indices), *self.size, 3), "uint8")
        used = np.array(indices)
        errors = self._decode(indices, images)
        for position, error in errors.items():
            bad = int(indices[position])
            if bad not in self._stand_ins:
                _logger.warning(
                    "Can't read image %s (%s); another stands in for it.",
                    self.paths[bad],
                    error,
                )
            images[position], used[position] = self._read_stand_in(bad)
        return images, used

    def _decode(self, indices, images):
        """Decodes into `images`; returns the errors by position."""

        def decode(position):
            try:
                images[position] = decode_image(
                    self.paths[indices[position]], self.size
                )
            # Pillow raises nearly anything on a damaged file.
            except Exception as error:
                return position, _describe(error)

        results = self._pool.map(decode, range(len(indices)))
        return dict(result for result in results if result is not None)

    def _read_stand_in(self, bad):
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
            f"is {self.paths[0]}"
        )

    def decode_all(self):
        """Decodes every image.

        Returns:
            A pair: the array of images, and the errors as a dictionary from
            the index of an image to what is wrong with it.
        """
        images = np.empty(self.shape, "uint8")
        return images, self._decode(range(len(self)), images)

    def check_headers(self):
        """Reads the header of each image, of a fixed sample if there are many.

        Returns:
            A pair: how many were read, and the errors as in `decode_all`.
        """
        from PIL import Image

        indices = np.arange(len(self))
        if len(self) > _CHECKED_FILES:
            rng = np.random.default_rng(0)
            indices = rng.choice(len(self), _CHECKED_FILES, replace=False)

        def check(index):
            try:
                with Image.open(self.paths[index]):
                    return None
            except Exception as error:
                return int(index), _describe(error)

        errors = dict(filter(None, self._pool.map(check, indices)))
        return len(indices), errors


def decode_image(path, size):
    """Decodes an image file as RGB: short side resized, then centre crop."""
    from PIL import Image, ImageOps

    with Image.open(path) as file:
        # Lets the JPEG decoder do most of the shrinking of a large photo.
        file.draft(None, (2 * max(size), 2 * max(size)))
        file.load()
        image: Image.Image = file
        try:
            image = ImageOps.exif_transpose(file)
        except Exception:
            pass  # A damaged EXIF block; the pixels are fine.
        if image.mode == "F" or image.mode.startswith("I"):
            # Pillow would clip 16 bits at 255.
            pixels = np.asarray(image, "float32") / 257
            image = Image.fromarray(np.clip(pixels, 0, 255).astype("uint8"))
        if image.mode == "P":
            image = image.convert("RGBA")  # Its transparency may be a table.
        image = image.convert("RGB")
        return np.asarray(
            ImageOps.fit(image, size[::-1], Image.Resampling.BILINEAR)
        )


def load_folder(path, split, image_size, limit, max_unreadable):
    """Finds the images of a folder and decodes them if they are few.

    Images are those with the suffix .jpg, .jpeg, .png or .webp, in sorted
    order, at any depth; hidden files are left out. The first-level folder of
    an image is its class. If any image lies directly in `path`, none has one.
    When all first-level folders are called train, test, val or validation,
    they are splits, with the classes inside them.

    Args:
        path: The folder.
        split: `"train"`, `"test"` or `"validation"`. Without folders for
            splits, all images are the split `"train"`.
        image_size: An integer, `(height, width)`, or `None` for 224.
        limit: `None`, or how many images to keep, evenly spaced in the sorted
            order, so that all classes stay.
        max_unreadable: The share of unreadable images that is tolerated.

    Returns:
        Images, labels and class names; the last two may be `None`.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"There is no folder {str(path)!r}.")
    size = parse_size(DEFAULT_SIZE if image_size is None else image_size)
    found = [file.relative_to(root).parts for file in _find_images(root)]
    if not found:
        raise ValueError(
            f"The folder {str(path)!r} holds no image. Files are needed that "
            f"end in {', '.join(_SUFFIXES)} (in any case)."
        )
    root, files, classes = _pick_split(root, found, split)
    labels = None
    if classes is not None:
        numbers = {name: number for number, name in enumerate(classes)}
        labels = np.array([numbers[file[0]] for file in files], "int64")
    folder = ImageFolder([root.joinpath(*f) for f in files], size, labels)
    if limit is not None and limit < len(folder):
        # The first ones would all be of one class.
        folder = folder.select(np.arange(limit) * len(folder) // limit)

    if np.prod(folder.shape) <= _IN_MEMORY_BYTES:
        images, errors = folder.decode_all()
        checked = len(folder)
    else:
        images = None
        checked, errors = folder.check_headers()
    _judge_unreadable(path, folder, checked, errors, max_unreadable)
    keep = np.setdiff1d(np.arange(len(folder)), list(errors))
    kept = folder.select(keep) if errors else folder
    if images is None:
        images = kept
    elif errors:
        images = images[keep]
    return images, kept.labels, classes


def _find_images(folder, parents=()):
    """Yields image files in sorted order; follows links, but no loops."""
    status = folder.stat()
    identity = (status.st_dev, status.st_ino)
    if identity in parents:
        return
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _find_images(entry, (*parents, identity))
        elif entry.suffix.lower() in _SUFFIXES:
            yield entry


def _pick_split(root, files, split):
    """Returns the root, the files and the class names of a split."""
    folders = {file[0] for file in files if len(file) > 1}
    in_root = any(len(file) == 1 for file in files)
    split_names = {name for names in _SPLITS.values() for name in names}
    if folders and not in_root and folders <= split_names:
        names = [name for name in _SPLITS.get(split, ()) if name in folders]
        if not names:
            raise ValueError(
                f"The folder {str(root)!r} has no images for split={split!r}. "
                f"It has them for {sorted(folders)}."
            )
        # Over all splits, so that a label means the same in each.
        inner = [file[1:] for file in files]
        files = [file[1:] for file in files if file[0] == names[0]]
        root = root / names[0]
    elif split != "train":
        raise ValueError(
            f"The folder {str(root)!r} isn't divided into train/ and test/ (or "
            f"validation/), so that all its images are the split 'train'. "
            f"Received: split={split!r}"
        )
    else:
        inner = files
    if any(len(file) == 1 for file in inner):
        return root, files, None
    return root, files, tuple(sorted({file[0] for file in inner}))


def _judge_unreadable(path, folder, checked, errors, max_unreadable):
    """Logs the unreadable images, or raises if they are too many."""
    if not errors:
        return
    named = ", ".join(
        f"{folder.paths[index]} ({errors[index]})"
        for index in sorted(errors)[:_NAMED_FILES]
    )
    if len(errors) > _NAMED_FILES:
        named += f" and {len(errors) - _NAMED_FILES:,} more"
    share = len(errors) / checked
    found = (
        f"{len(errors):,} of {checked:,} images ({share:.1%}) in {str(path)!r} "
        "can't be read"
    )
    if share > max_unreadable or len(errors) == checked:
        raise ValueError(
            f"{found}, more than max_unreadable={max_unreadable:.1%}. Repair "
            f"or delete them, or raise `max_unreadable`: {named}"
        )
    _logger.warning("%s and are skipped: %s", found, named)


def _describe(error):
    # Pillow repeats the path in its messages; one line is enough.
    text = str(error).split("\n")[0][:120]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
