"""Images with their labels."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from kerassl.data.batches import ImageBatches
from kerassl.data.photos import Photos
from kerassl.data.records import Files, Paths
from kerassl.data.spread import spread
from kerassl.value_range import ValueRange


@dataclasses.dataclass(frozen=True, eq=False)
class ImageData:
    """Images, with labels if there are any.

    Unpacks as `images, labels = data`.

    Args:
        images: array `(N, height, width, channels)`, or `Photos`, which are
            decoded when they are indexed.
        labels: int64 array of shape `(N,)`, or `None`.
        class_names: tuple of strings, the class of each label, or `None`.
        name: str, where the images come from.
        paths: the file of each image, for images from a folder. Row `i` of the
            features belongs to the file `paths[i]`, unless the log says that
            another image replaced it.
        notes: tuple of sentences on what was left out.
        listing: what the folder or the tar files of the images hold, for
            `remember`; or `None`.
        value_range: `kerassl.value_range.ValueRange` that was mapped to
            [0, 255] as the images were read; `None` if they were in [0, 255],
            or each DICOM file had its own.

    Raises:
        ValueError: if the number of labels or paths differs from that of
            images.

    Example:
    ```python
    data = kerassl.data.load("folder:photos", image_size=96)
    features = kerassl.encoders.embed(encoder, data)
    print(data.paths[features[:, 0].argmax()])
    ```
    """

    images: np.ndarray | Photos
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] | None = None
    name: str = ""
    paths: Sequence[Path] | None = None
    notes: tuple[str, ...] = ()
    listing: Any = dataclasses.field(default=None, repr=False)
    value_range: ValueRange | None = None

    def __post_init__(self) -> None:
        """Takes the paths of a folder's images, and checks the lengths."""
        records = getattr(self.images, "records", None)
        if self.paths is None and isinstance(records, Files):
            object.__setattr__(self, "paths", records.paths)
        for what in ("labels", "paths"):
            rows = getattr(self, what)
            if rows is not None and len(rows) != len(self.images):
                raise ValueError(
                    f"`{what}` must have one entry for each image. Received: "
                    f"{len(rows):,} {what} for {len(self.images):,} images"
                )

    # `Any`, since what is unpacked has two types.
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

    def remember(self, path: str | Path) -> None:
        """Writes what the folder or the tar files hold, for `load`.

        Does nothing if the images are from another source, or if the folder
        was changed just before it was listed.

        Args:
            path: path of the file, for the argument `remembered` of `load`.

        Raises:
            OSError: if the file can't be written.
        """
        if self.listing is not None:
            self.listing.save(path)

    def take(self, n: int) -> Self:
        """Returns the first `n` images, with their labels."""
        return self.select(slice(n))

    def limited(self, limit: int | None) -> Self:
        """Returns at most so many images, evenly spaced, with their labels.

        Those of a streamed data set are in few of its row groups.

        Args:
            limit: int > 0, or `None` for all.
        """
        count = len(self.images)
        if limit is None or limit >= count:
            return self
        if isinstance(self.images, Photos):
            return self.select(self.images.spread(limit))
        return self.select(spread(count, limit))

    def select(self, index: slice | Sequence[int] | np.ndarray) -> Self:
        """Returns the images at a slice or at indices, with their labels."""
        images: np.ndarray | Photos
        if isinstance(self.images, Photos):
            images = self.images.select(index)
        else:
            images = self.images[index]
        labels = None if self.labels is None else self.labels[index]
        paths: Sequence[Path] | None = None
        if isinstance(self.paths, Paths):
            paths = self.paths[index]
        elif self.paths is not None:
            rows = np.arange(len(self.paths))[index]
            paths = tuple(self.paths[row] for row in rows)
        return dataclasses.replace(
            self, images=images, labels=labels, paths=paths
        )

    def split(self, fraction: float = 0.2, seed: int = 0) -> tuple[Self, Self]:
        """Splits the images in two parts, such as for training and testing.

        With labels, each class is split in the same proportion. The parts are
        disjoint and keep the order of the images. They depend only on the
        labels, the number of images and the seed.

        Args:
            fraction: float in (0, 1), the second part's share of the images,
                or of each class. Each part gets at least one image of each
                class; a class with one image stays in the first part.
            seed: int >= 0.

        Returns:
            Two `ImageData`: the rest, and the `fraction`.

        Raises:
            ValueError: if `fraction` is out of range, or there are too few
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
                "To split images, at least one class needs two or more. "
                f"Received: {count:,} images of "
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

        Returns:
            An `ImageBatches`.

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
