"""Finds the images that are nearest to others."""

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kerassl import encoders
from kerassl.data import ImageData
from kerassl.data.decoders import RGB, Decoder
from kerassl.data.planes import Planes
from kerassl.names import MAX_UNREADABLE
from kerassl.runs.subject import (
    check_channels,
    load_images,
    load_size,
    open_encoder,
)
from kerassl.value_range import Stated
from kerassl.visualization.features import class_name, unit
from kerassl.visualization.neighbors import check_k, draw_found, nearest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# For an encoder that takes any size.
SIZE = (224, 224)
Found = list[tuple[np.ndarray, np.ndarray]]


class Search:
    """Images to search by their features.

    The features are computed once, with the first queries, and then serve any
    number of them.

    Args:
        source: a run, a preset or another source that `kerassl.load_encoder`
            takes.
        data: str, as in `kerassl.data.load`, the images to search.
        split: str, as in `kerassl.data.load`.
        limit: int or `None`, as in `kerassl.data.load`.
        data_dir: as in `kerassl.data.load`.
        max_unreadable: as in `kerassl.data.load`.
        value_range: as in `kerassl.data.load`; by default that of the images
            that the encoder learned from.

    Raises:
        ValueError: if the encoder or the images are refused.
        FileNotFoundError: if the encoder or the data don't exist.

    Example:
    ```python
    search = kerassl.runs.Search("runs/a", "folder:photos")
    (indices, similarities), *_ = search.nearest(["cat.jpg"], k=5)
    [search.data.paths[i] for i in indices]
    ```
    """

    def __init__(
        self,
        source: str | Path,
        data: str,
        *,
        split: str = "train",
        limit: int | None = None,
        data_dir: str | None = None,
        max_unreadable: float = MAX_UNREADABLE,
        value_range: Stated = None,
    ):
        self.encoder = open_encoder(source)
        self.data = load_images(
            self.encoder,
            source,
            data,
            split,
            limit=limit,
            data_dir=data_dir,
            max_unreadable=max_unreadable,
            value_range=value_range,
        )

    @functools.cached_property
    def features(self) -> np.ndarray:
        """The unit features of the images, an array `(N, D)`."""
        features = encoders.embed(self.encoder, self.data.images)
        return unit(self.data.name, features)

    def nearest(self, files: Sequence[str | Path], k: int = 5) -> Found:
        """Finds the nearest images of image files.

        Args:
            files: paths of images. One that is also searched isn't found.
            k: int in [1, number of images to search].

        Returns:
            A list with a pair of arrays `(k,)` for each file: the indices of
            the images found, nearest first, and their cosine similarities. If
            all images are to be found, and the file is one of them, they are
            `(k - 1,)`.

        Raises:
            ValueError: if a file isn't an image, or there are fewer images.
        """
        queries, count = self._read(files), len(self.data.images)
        check_k(k, count)  # Fails before the features are computed.
        features = encoders.embed(self.encoder, queries.images)
        # One more, since a file may find itself.
        more = k + 1 if k < count else k
        indices, similarities = nearest(features, self.features, more)
        found = []
        for file, row, near in zip(files, indices, similarities):
            kept = [n for n, i in enumerate(row) if not self._is(i, file)][:k]
            found.append((row[kept], near[kept]))
        return found

    def draw(self, files: Sequence[str | Path], found: Found) -> "Figure":
        """Draws image files, each beside the images found.

        Args:
            files: as in `nearest`.
            found: the result of `nearest`.

        Returns:
            A matplotlib `Figure`.

        Raises:
            ImportError: without matplotlib.
        """
        return draw_found(self._read(files), found, self.data)

    def rows(
        self, indices: np.ndarray, similarities: np.ndarray
    ) -> list[dict[str, Any]]:
        """Returns what is known about images found, as plain values.

        Args:
            indices: as in a pair of `nearest`.
            similarities: likewise.

        Returns:
            A list of dicts: `index`, `similarity`, and `path` and `class`, if
            there are any.
        """
        rows = []
        for index, similarity in zip(indices.tolist(), similarities.tolist()):
            row = {"index": index, "similarity": similarity}
            if self.data.paths is not None:
                row["path"] = str(self.data.paths[index])
            if self.data.labels is not None:
                row["class"] = class_name(self.data, self.data.labels[index])
            rows.append(row)
        return rows

    def _is(self, index: int, file: str | Path) -> bool:
        return self.data.paths is not None and (
            os.path.realpath(self.data.paths[index]) == os.path.realpath(file)
        )

    def _decoder(self) -> Decoder:
        """Returns what reads queries as the images were read."""
        images, found = self.data.images, self.data.value_range
        if not isinstance(images, np.ndarray):
            return images.decoder
        channels = images.shape[-1]
        if channels == 3 and found is None:
            return RGB()
        dtype = "uint8" if images.dtype == np.uint8 else "float32"
        return Planes(channels, dtype, found)

    def _read(self, files: Sequence[str | Path]) -> ImageData:
        size = load_size(self.encoder) or SIZE
        decoder = self._decoder()
        pictures = []
        for file in files:
            try:
                pictures.append(decoder.image(file, size))
            except (OSError, ValueError) as error:
                raise ValueError(
                    f"{file} can't be read as an image: {error}"
                ) from error
        read = ImageData(np.stack(pictures), None, None, "the queries")
        check_channels(self.encoder, read)
        return read
