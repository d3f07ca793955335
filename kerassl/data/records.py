"""Where encoded images are stored: one by one, by number."""

import io
import operator
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

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
        """Returns some of the records, in this order.

        A few of them are small when they are pickled.
        """


class Paths(Sequence[Path]):
    """Paths that share a root, as a sequence that makes each when asked for.

    A million `Path`s would take half a gigabyte.

    Args:
        names: list of str, relative to the root.
        root: str; by default the names are the paths.
    """

    def __init__(self, names: list[str], root: str = ""):
        self.names = names
        self.root = root

    def __len__(self) -> int:
        """Returns the number of paths."""
        return len(self.names)

    def __getitem__(self, index: Any) -> Any:
        """Returns a path; of a slice or an array of indices, their paths."""
        if isinstance(index, (int, np.integer)):
            return Path(self.root, self.names[index])
        if isinstance(index, slice):
            return Paths(self.names[index], self.root)
        rows = np.arange(len(self))[index]
        return Paths([self.names[i] for i in rows], self.root)

    def __eq__(self, other: object) -> bool:
        """Says whether the other sequence has the same paths."""
        if isinstance(other, Sequence) and len(self) == len(other):
            return all(map(operator.eq, self, other))
        return False

    __hash__ = None  # type: ignore[assignment]


class Files:
    """Image files.

    Args:
        paths: paths.
        root: str, what they are relative to.
    """

    def __init__(self, paths: Iterable[str | Path], root: str = ""):
        self.names = [os.fspath(path) for path in paths]
        self.root = root

    @property
    def paths(self) -> Paths:
        """The path of each file."""
        return Paths(self.names, self.root)

    def __len__(self) -> int:
        """Returns the number of files."""
        return len(self.names)

    def source(self, index: int) -> Source:
        """Returns the path."""
        return os.path.join(self.root, self.names[index])

    def name(self, index: int) -> str:
        """Returns the path."""
        return os.path.join(self.root, self.names[index])

    def select(self, indices: Sequence[int] | np.ndarray) -> "Files":
        """Returns some of the files."""
        return Files([self.names[i] for i in indices], self.root)


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
        table = self.table[indices]
        numbers, table[:, 0] = np.unique(table[:, 0], return_inverse=True)
        return Ranges([self.files[i] for i in numbers.tolist()], table)
