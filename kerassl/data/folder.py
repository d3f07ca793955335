"""Folders of images."""

import collections
import copy
import logging
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from kerassl.data.arrays import parse_size
from kerassl.data.files import pick_split, warn_of_empty
from kerassl.data.listing import list_images
from kerassl.data.photos import DEFAULT_SIZE, Photos
from kerassl.data.records import Files

_logger = logging.getLogger("kerassl")


class ImageFolder(Photos):
    """Image files that look like one array of shape `(N, H, W, C)`.

    Args:
        paths: the image files.
        size: tuple `(height, width)`, to which images are resized.
        labels: int array of shape `(N,)`, or `None`.
        root: str, the folder that the paths are relative to.

    Example:
    ```python
    folder = ImageFolder(Path("photos").glob("*.jpg"), size=(96, 96))
    folder[:8]  # uint8 (8, 96, 96, 3)
    ```
    """

    def __init__(
        self,
        paths: Iterable[str | Path],
        size: tuple[int, int],
        labels: np.ndarray | None = None,
        root: str = "",
    ):
        super().__init__(Files(paths, root), size, labels)


def load_folder(
    path: str | Path,
    split: str,
    image_size: int | tuple[int, int] | None,
    limit: int | None,
    remembered: str | os.PathLike | None = None,
) -> tuple[ImageFolder, tuple[str, ...] | None]:
    """Finds the images of a folder.

    Images are the files with a suffix that Pillow reads (in any case), and
    `.dcm`, `.dicom` and, where there are no others, `.npy`; in sorted order and
    at any depth, except hidden files. The first-level folder
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
        remembered: as in `list_images`.

    Returns:
        A pair: the folder, and the class names or `None`.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if it can't be listed, has no images, lacks this split, or
            mixes splits with other images.
    """
    root = Path(os.path.expanduser(path))
    if not root.is_dir():
        raise FileNotFoundError(f"There is no folder {str(path)!r}.")
    size = parse_size(DEFAULT_SIZE if image_size is None else image_size)
    try:
        listing = list_images(root, remembered)
    except OSError as error:
        raise ValueError(
            f"The folder {str(path)!r} can't be listed: {error}"
        ) from error
    skipped = copy.deepcopy(listing.skipped)
    files = [tuple(name.split(os.sep)) for name in listing.names]
    # Beside images, arrays are usually something else, such as features.
    images = [file for file in files if not file[-1].lower().endswith(".npy")]
    if images:
        skipped.suffixes[".npy"] += len(files) - len(images)
        skipped.suffixes += collections.Counter()  # Without zeros.
        files = images
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
    names = [os.sep.join(file) for file in files]
    folder = ImageFolder(names, size, labels, str(root)).limited(limit)
    folder.listing = listing
    if words := str(skipped):
        folder.notes.append(f"left out: {words}")
    return folder, classes
