"""Arrays in `.npy` and `.npz` files, of which only some rows are read."""

import contextlib
import math
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Self

import numpy as np

_CHUNK_BYTES = 2**24
_MEMORY_MAP_BYTES = 2**30
_HEADERS: dict[tuple[int, int], Callable] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class StoredArray:
    """An array in a file, of which only the header has been read.

    Args:
        open_file: returns the file, opened at the start of the array.
        size: int, how many bytes it has there, with its header.
        path: path of the file if it holds nothing else, to be mapped into
            memory if it is large.

    Raises:
        ValueError: If it holds Python objects, or the header says that there
            are more bytes than there are.
    """

    def __init__(
        self,
        open_file: Callable[[], IO[bytes]],
        size: int,
        path: Path | None = None,
    ):
        self._open_file = open_file
        self._path = path
        with self._open() as file:
            size -= file.tell()
        if self.dtype.hasobject:
            raise ValueError("it holds pickled objects, not numbers")
        self.bytes = math.prod(self.shape) * self.dtype.itemsize
        if self.bytes > size:
            raise ValueError(
                f"it ends early: {self.bytes:,} bytes of shape {self.shape} "
                f"are needed, and {size:,} there"
            )

    @contextlib.contextmanager
    def _open(self) -> Iterator[IO[bytes]]:
        """Opens the file behind the header, of which it takes note."""
        with self._open_file() as file:
            version = np.lib.format.read_magic(file)
            if version not in _HEADERS:
                raise ValueError(f"its .npy version is {version}")
            shape, self._fortran, self.dtype = _HEADERS[version](file)
            self.shape = tuple(shape)
            yield file

    def read(self, limit: int | None = None) -> np.ndarray:
        """Reads the first rows, and nothing behind them.

        Args:
            limit: int or `None`, how many rows.

        Returns:
            An array in C order and native byte order, which may be written
            to. A large `.npy` file is mapped into memory.

        Raises:
            ValueError: If the file ends early.
        """
        shape = self.shape
        # The rows of arrays in Fortran's order aren't side by side.
        if limit is not None and shape and not self._fortran:
            shape = (min(limit, shape[0]), *shape[1:])
        if (
            self._path is not None
            and shape == self.shape
            and self.bytes > _MEMORY_MAP_BYTES
        ):
            # Copy on write: the arrays stay writable, as PyTorch wants them.
            array = np.load(self._path, mmap_mode="c")
        else:
            array = np.empty(math.prod(shape), self.dtype)
            with self._open() as file:
                _fill(file, array.view("uint8").data)
            array = array.reshape(shape, order="F" if self._fortran else "C")
        if limit is not None and array.ndim:
            array = array[:limit]
        return array.astype(array.dtype.newbyteorder("="), "C", copy=False)


def _fill(file: IO[bytes], buffer: memoryview) -> None:
    """Fills a buffer from a file, without another copy of it."""
    start = 0
    while start < len(buffer):
        part: Any = buffer[start : start + _CHUNK_BYTES]
        count = file.readinto(part)  # type: ignore[attr-defined]
        if not count:
            raise ValueError("it ends early")
        start += count


class ArrayFile:
    """The arrays of an `.npz` file by name; of an `.npy` file its only one.

    Args:
        path: path of the file.

    Raises:
        OSError: If the file can't be read.
        zipfile.BadZipFile: If an `.npz` file is damaged.

    Example:
    ```python
    with ArrayFile("data.npz") as arrays:
        first = arrays["images"].read(10)
    ```
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._archive = None
        self.names = [""]
        if self.path.suffix.lower() == ".npz":
            self._archive = zipfile.ZipFile(self.path)
            members = self._archive.namelist()
            self._members = {n.removesuffix(".npy"): n for n in members}
            self.names = list(self._members)

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Closes the file."""
        if self._archive is not None:
            self._archive.close()

    def __getitem__(self, name: str) -> StoredArray:
        """Returns the array of a name, of which it reads the header."""
        if self._archive is None:
            size = os.path.getsize(self.path)
            return StoredArray(lambda: open(self.path, "rb"), size, self.path)
        archive, member = self._archive, self._members[name]
        size = archive.getinfo(member).file_size
        return StoredArray(lambda: archive.open(member), size)
