"""Where encoded images are stored: one by one, by number."""

import io
import operator
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np

from kerassl.data.decode import Source
from kerassl.data.remote import is_url, read_range

#: Images that a process gets at once: a message takes 0.1 ms. So many are
#: fetched together from URLs, and take their bytes along from Parquet files.
MOST_AT_ONCE = 32


class Records(Protocol):
    """Encoded images with random access, which can be pickled and forked.

    Those that are read in groups, `RowGroups`, have an order of their own.
    """

    @property
    def is_remote(self) -> bool:
        """Whether reading an image is a request to a server."""

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

    is_remote = False

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
        files: the paths or URLs of the files.
        table: int64 array `(N, 3)`: the number of the file, the first byte and
            the number of bytes of each image.
    """

    def __init__(self, files: Sequence[str | Path], table: np.ndarray):
        self.files = list(files)
        self.is_remote = any(map(is_url, self.files))
        self.table = np.asarray(table, "int64").reshape(-1, 3)
        # A few images at URLs are fetched together, and kept.
        self._fetched: list[bytes | Exception] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Returns the state without what was fetched."""
        return {**vars(self), "_fetched": None}

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self.table)

    def source(self, index: int) -> Source:
        """Returns the bytes of an image, as an open file."""
        number, start, size = self.table[index].tolist()
        # Those of a task of `workers`, for which each would wait in turn.
        if self.is_remote and 1 < len(self) <= MOST_AT_ONCE:
            if self._fetched is None:
                self._fetched = self._fetch()
            content = self._fetched[index]
            if isinstance(content, bytes):
                return io.BytesIO(content)
        return io.BytesIO(read_range(self.files[number], start, size))

    def _fetch(self) -> list[bytes | Exception]:
        def fetch(row: list[int]) -> bytes | Exception:
            try:
                return read_range(self.files[row[0]], row[1], row[2])
            except Exception as error:
                return error

        with ThreadPoolExecutor(len(self)) as threads:
            return list(threads.map(fetch, self.table.tolist()))

    def name(self, index: int) -> str:
        """Returns the file and the range."""
        number, start, size = self.table[index].tolist()
        return f"{self.files[number]}[{start}:{start + size}]"

    def select(self, indices: Sequence[int] | np.ndarray) -> "Ranges":
        """Returns some of the images."""
        table = self.table[indices]
        numbers, table[:, 0] = np.unique(table[:, 0], return_inverse=True)
        return Ranges([self.files[i] for i in numbers.tolist()], table)
