"""Where encoded images are stored: one by one, by number."""

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol, Self

import numpy as np

from kerassl.data.decode import Source


class Records(Protocol):
    """Encoded images with random access, which can be pickled and forked."""

    def __len__(self) -> int:
        """Returns the number of images."""

    def source(self, index: int) -> Source:
        """Returns where an image is: a path, or its bytes as an open file."""

    def name(self, index: int) -> str:
        """Returns what messages call an image."""

    def select(self, indices: Sequence[int] | np.ndarray) -> Self:
        """Returns some of the records, in this order."""


class Files:
    """Image files.

    Args:
        paths: paths.
    """

    def __init__(self, paths: Iterable[str | Path]):
        self.paths = [Path(path) for path in paths]

    def __len__(self) -> int:
        """Returns the number of files."""
        return len(self.paths)

    def source(self, index: int) -> Source:
        """Returns the path."""
        return self.paths[index]

    def name(self, index: int) -> str:
        """Returns the path."""
        return str(self.paths[index])

    def select(self, indices: Sequence[int] | np.ndarray) -> "Files":
        """Returns some of the files."""
        return Files([self.paths[i] for i in indices])


class Ranges:
    """Images that are ranges of bytes in larger files.

    Files are opened for each image, which takes a few microseconds, so that
    nothing is shared between threads or processes.

    Args:
        files: the paths of the files.
        table: int64 array `(N, 3)`: the number of the file, the first byte and
            the number of bytes of each image.
    """

    def __init__(self, files: Sequence[Path], table: np.ndarray):
        self.files = list(files)
        self.table = np.asarray(table, "int64").reshape(-1, 3)

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self.table)

    def source(self, index: int) -> Source:
        """Returns the bytes of an image, as an open file."""
        number, start, size = self.table[index].tolist()
        with open(self.files[number], "rb") as file:
            file.seek(start)
            return io.BytesIO(file.read(size))

    def name(self, index: int) -> str:
        """Returns the file and the range."""
        number, start, size = self.table[index].tolist()
        return f"{self.files[number]}[{start}:{start + size}]"

    def select(self, indices: Sequence[int] | np.ndarray) -> "Ranges":
        """Returns some of the images."""
        return Ranges(self.files, self.table[indices])
