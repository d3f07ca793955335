"""One function that reads images from wherever they are."""

import contextlib
import dataclasses
import difflib
import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np

from kerassl.data.arrays import check_images, load_file
from kerassl.data.batches import ImageBatches
from kerassl.data.decode import open_image
from kerassl.data.files import find_images
from kerassl.data.folder import DEFAULT_SIZE, ImageFolder, load_folder
from kerassl.data.stored import ArrayFile
from kerassl.names import MAX_UNREADABLE

_EMBEDDED = "fashion_mnist_small"
_FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_FORMS = (
    "'fashion_mnist_small' (comes with kerassl), a TFDS name such as "
    "'cifar10' or 'tfds:NAME[/config][:version]', 'folder:PATH', 'PATH.npz' "
    "or 'PATH.npy'"
)
_PEEKED_FILES = 20


@dataclasses.dataclass(frozen=True, eq=False)
class ImageData:
    """Images, with labels if there are any.

    It unpacks: `images, labels = data`.

    Args:
        images: A NumPy array `(N, height, width, channels)`, or an
            `ImageFolder`, which decodes the images that are indexed.
        labels: int64 of shape `(N,)`, or `None`.
        class_names: What the labels stand for, or `None`.
        name: Where the images come from.
        paths: The file of each image, if each has one: those of a folder. Row
            `i` of the features of these images is of the file `paths[i]`,
            unless the log says that another image stood in for it.

    Raises:
        ValueError: If there is another number of labels or paths than of
            images.

    Example:
    ```python
    data = kerassl.data.load("folder:photos", image_size=96)
    features = kerassl.encoders.embed(encoder, data)
    print(data.paths[features[:, 0].argmax()])
    ```
    """

    images: Any
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] | None = None
    name: str = ""
    paths: tuple[Path, ...] | None = None

    def __post_init__(self) -> None:
        """Takes over the paths of an `ImageFolder`, and counts."""
        if self.paths is None and isinstance(self.images, ImageFolder):
            object.__setattr__(self, "paths", tuple(self.images.paths))
        for what in ("labels", "paths"):
            rows = getattr(self, what)
            if rows is not None and len(rows) != len(self.images):
                raise ValueError(
                    f"`{what}` must have one entry for each image. Received: "
                    f"{len(rows):,} {what} for {len(self.images):,} images"
                )

    def __iter__(self) -> Iterator[Any]:
        """Yields the images, then the labels."""
        yield self.images
        yield self.labels

    def __repr__(self) -> str:
        """Returns the name and the shape, not the pixels."""
        return f"ImageData({self.name!r}, shape={tuple(self.images.shape)})"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The shape `(height, width, channels)` of one image."""
        height, width, channels = self.images.shape[1:]
        return height, width, channels

    def take(self, n: int) -> Self:
        """Returns the first `n` images, with their labels."""
        return self.select(slice(n))

    def select(self, index: Any) -> Self:
        """Returns the images at a slice or at indices, with all they have."""
        if isinstance(self.images, ImageFolder):
            images = self.images.select(index)
        else:
            images = self.images[index]
        labels = None if self.labels is None else self.labels[index]
        paths = None
        if self.paths is not None:
            rows = np.arange(len(self.paths))[index]
            paths = tuple(self.paths[row] for row in rows)
        return dataclasses.replace(
            self, images=images, labels=labels, paths=paths
        )

    def split(self, fraction: float = 0.2, seed: int = 0) -> tuple[Self, Self]:
        """Splits the images in two parts, such as for training and for tests.

        With labels, each class is split alike. The parts have no image in
        common, and keep the order of the images. They depend on the labels,
        the number of images and the seed.

        Args:
            fraction: float in (0, 1), the second part's share of the images,
                or of each class. It gets at least one image of each, and
                leaves at least one: the only image of a class stays in the
                first part.
            seed: int >= 0.

        Returns:
            Two `ImageData`: what is left, and the `fraction`.

        Raises:
            ValueError: If `fraction` is out of range, or there are too few
                images for two parts.

        Example:
        ```python
        train, test = kerassl.data.load("folder:photos").split(0.2)
        ```
        """
        if not 0 < fraction < 1:
            raise ValueError(
                f"`fraction` must be in (0, 1). Received: {fraction}"
            )
        count = len(self.images)
        groups = np.zeros(count, "int64")
        if self.labels is not None:
            groups = np.asarray(self.labels)
        rng = np.random.default_rng(seed)
        second = np.zeros(count, "bool")
        for group in np.unique(groups):
            order = rng.permutation(np.flatnonzero(groups == group))
            number = max(1, round(fraction * len(order)))
            second[order[: min(number, len(order) - 1)]] = True
        if not second.any():
            raise ValueError(
                "To be split, the images of at least one class must be two or "
                f"more. Received: {count:,} images of "
                f"{len(np.unique(groups)):,} classes"
            )
        parts = np.flatnonzero(~second), np.flatnonzero(second)
        return self.select(parts[0]), self.select(parts[1])

    def batches(
        self,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        drop_remainder: bool = False,
        epoch: int = 0,
        start_step: int = 0,
        part: tuple[int, int] = (0, 1),
    ) -> ImageBatches:
        """Returns batches for `fit`; see `ImageBatches` for the arguments.

        Example:
        ```python
        batches = data.batches(256, shuffle=True, drop_remainder=True)
        model.fit(batches, epochs=10, shuffle=False)
        ```
        """
        return ImageBatches(
            self.images,
            self.labels,
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            drop_remainder=drop_remainder,
            epoch=epoch,
            start_step=start_step,
            part=part,
        )


def load(
    spec: str,
    split: str = "train",
    *,
    image_size: int | tuple[int, int] | None = None,
    limit: int | None = None,
    data_dir: str | None = None,
    max_unreadable: float = MAX_UNREADABLE,
) -> ImageData:
    """Loads images.

    Args:
        spec: Where they are.
            `"fashion_mnist_small"`: 10,000 + 2,000 images of Fashion-MNIST
            that come with kerassl.
            `"cifar10"`, `"tfds:NAME[/config][:version]"`: a data set of
            TensorFlow Datasets, downloaded if it isn't on this machine.
            `"folder:PATH"` or a folder's path: all image files that Pillow
            reads, as RGB, labeled by their first-level sub-folder, or
            unlabeled if any image lies directly in the folder. Sub-folders
            called `train`, `training`, `test`, `testing`, `val`, `valid` or
            `validation`, in any case, are splits if nothing else is beside
            them. Up to 1 GiB is decoded at once, a larger folder as it is
            needed.
            `"PATH.npz"`: arrays `images` and `labels`, or `x_train`,
            `y_train`, `x_test`, `y_test`. `"PATH.npy"`: the images.
        split: `"train"`, `"test"`, `"validation"`, or for folders and files
            another name of these; with TFDS also slices such as
            `"train[:1000]"`.
        image_size: An integer or `(height, width)`. Images of another size
            have their short side resized and their center cut out. Folders
            use 224 without it.
        limit: How many images to load at most: the first ones, or of a folder
            evenly spaced ones, since its first ones are all of one class. The
            others aren't read.
        data_dir: Where TFDS keeps its data sets, if not in its own place.
        max_unreadable: The share of unreadable images in a folder, in [0, 1],
            above which loading fails. Fewer are skipped and named in the log.

    Returns:
        An `ImageData`.

    Raises:
        ValueError: If `spec` or `split` is unknown, or the images are no
            good; the message says what was found and what is needed.
        FileNotFoundError: If there is nothing at the path, or the data set
            can't be downloaded.

    Example:
    ```python
    data = kerassl.data.load("cifar10")
    images, labels = kerassl.data.load("folder:photos", image_size=96)
    ```
    """
    spec = os.fspath(spec)
    if limit is not None and limit < 1:
        raise ValueError(f"`limit` must be at least 1. Received: {limit}")
    if not 0 <= max_unreadable <= 1:
        raise ValueError(
            f"`max_unreadable` must be in [0, 1]. Received: {max_unreadable}"
        )
    class_names: tuple[str, ...] | None = None
    paths = None
    images: np.ndarray | ImageFolder
    kind, source = _find(spec, data_dir)
    if kind == "file":
        images, labels = load_file(source, split, image_size, limit)
        if spec == _EMBEDDED:
            class_names = _FASHION_CLASSES
    elif kind == "folder":
        images, labels, class_names, paths = load_folder(
            source, split, image_size, limit, max_unreadable
        )
    else:
        from kerassl.data.tfds import load_tfds

        images, labels, class_names = load_tfds(
            source, split, image_size, limit
        )
        check_images(images, f"images of {spec}")
    return ImageData(images, labels, class_names, spec, paths)


def peek_size(spec: str, *, data_dir: str | None = None) -> tuple[int, bool]:
    """Returns how large images are, mostly without loading any.

    Args:
        spec: Where the images are, as in `load`.
        data_dir: As in `load`.

    Returns:
        A pair: the short side in pixels, and whether the images may be of
        various sizes, so that `load` gives them one. The first is then the
        median of a folder's first images, and 224 for TFDS, which doesn't
        tell.

    Raises:
        ValueError: As in `load`.
        FileNotFoundError: As in `load`.

    Example:
    ```python
    peek_size("fashion_mnist_small")  # (28, False)
    ```
    """
    spec = os.fspath(spec)
    kind, source = _find(spec, data_dir)
    shape: tuple[int, ...] | None = None
    if kind == "folder":
        sides = _peek_folder(Path(source).expanduser())
        if sides:
            return int(np.median(sides)), True
    elif kind == "file":
        shape = _peek_file(Path(source).expanduser())
    else:
        from kerassl.data.tfds import image_shape

        height, width, *_ = image_shape(source)
        if height is None or width is None:
            return DEFAULT_SIZE, True
        return min(height, width), False
    if shape is None:  # Rare: `load` knows more, or says what is wrong.
        shape = load(spec, data_dir=data_dir).image_shape
    return min(shape[:2]), kind == "folder"


def _peek_folder(root: Path) -> list[int]:
    """Returns the short sides of the first readable images of a folder."""
    sides: list[int] = []
    if root.is_dir():
        # `load` says why a folder can't be listed.
        with contextlib.suppress(OSError):
            for path in itertools.islice(find_images(root), _PEEKED_FILES):
                # And it counts and names the unreadable ones.
                with contextlib.suppress(Exception), open_image(path) as image:
                    sides.append(min(image.size))
    return sides


def _peek_file(path: Path) -> tuple[int, ...] | None:
    """Returns the shape of one image of a file, or `None`."""
    if not path.is_file():
        return None
    # `load` says what is wrong with a file.
    with contextlib.suppress(Exception), ArrayFile(path) as arrays:
        for name in arrays.names:
            with contextlib.suppress(Exception):
                shape = arrays[name].shape
                if len(shape) > 2:  # The others are labels.
                    return shape[1:]
    return None


def _find(spec: str, data_dir: str | None) -> tuple[str, Any]:
    """Returns `"file"`, `"folder"` or `"tfds"`, and the path or builder."""
    if spec == _EMBEDDED:
        return "file", Path(__file__).parent / _EMBEDDED / "data.npz"
    if spec.lower().endswith((".npz", ".npy")):
        return "file", spec
    if spec.startswith("folder:") or (
        os.path.isdir(spec) and not spec.isidentifier()
    ):
        return "folder", spec.removeprefix("folder:")
    builder = _find_builder(spec, data_dir)
    if builder is None:  # A folder with a bare name; TFDS goes first.
        return "folder", spec
    return "tfds", builder


def _find_builder(spec: str, data_dir: str | None) -> Any:
    """Returns a TFDS builder, `None` for a folder, or raises."""
    name = spec.removeprefix("tfds:")
    nearest = difflib.get_close_matches(name, [_EMBEDDED])
    if re.fullmatch(r"\w+(/[\w.+-]+)?(:[\w.*]+)?", name):
        from kerassl.data.tfds import find_builder, nearest_names

        builder = find_builder(name, data_dir)
        if builder is not None:
            return builder
        if spec == name and os.path.isdir(spec):
            return None
        nearest += nearest_names(re.split("[/:]", name)[0])
    hint = (
        f" Did you mean {' or '.join(map(repr, nearest))}?" if nearest else ""
    )
    raise ValueError(
        f"There are no images called {spec!r}.{hint} Use one of: {_FORMS}."
    )
