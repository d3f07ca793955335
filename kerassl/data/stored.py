"""Partial reading of arrays in `.npy` and `.npz` files."""

import contextlib
import math
import os
import struct
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Self, TypeAlias

import numpy as np

_CHUNK_BYTES = 2**24
MEMORY_MAP_BYTES = 2**30
Header: TypeAlias = tuple[tuple[int, ...], bool, np.dtype]
_HEADERS: dict[tuple[int, int], Callable[[IO[bytes]], Header]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_npy_header(file: IO[bytes]) -> Header:
    """Reads the header of a `.npy` file: its shape, order and dtype.

    Args:
        file: the file, opened at its start; afterwards at its first value.

    Raises:
        ValueError: if it is another file, or of an unknown version.
    """
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"its .npy version is {version}")
    return _HEADERS[version](file)


def channels_first(shape: Sequence[int | None]) -> bool:
    """Returns whether images of a shape seem to have their channels first.

    Args:
        shape: the sizes of one image, or of several. Not so are images of 3
            rows and as many channels as columns.
    """
    return shape[-3] in (1, 3) and shape[-2] == shape[-1] not in (1, 3)


class StoredArray:
    """An array in a file, of which only the header has been read.

    Args:
        open_file: function that opens the file at the start of the array.
        size: int, the bytes of the array in the file, including its header.
        path: path of the file that holds these bytes as they are, or `None`:
            large arrays are then mapped into memory.
        offset: int, where they begin in that file.

    Attributes:
        shape: tuple, as the header says.
        dtype: `np.dtype`, as the header says.
        bytes: int, the size of the array in memory.
        is_mapped: bool, whether `read` maps all of it into memory.

    Raises:
        ValueError: if the array holds Python objects, or the file is shorter
            than the header says.
    """

    def __init__(
        self,
        open_file: Callable[[], IO[bytes]],
        size: int,
        path: Path | None = None,
        offset: int = 0,
    ):
        self._open_file = open_file
        self._path = path
        with self._open() as file:
            size -= file.tell()
            self._offset = offset + file.tell()
        if self.dtype.hasobject:
            raise ValueError("it holds pickled objects, not numbers")
        self.bytes = math.prod(self.shape) * self.dtype.itemsize
        if self.bytes > size:
            raise ValueError(
                f"it ends early: shape {self.shape} needs {self.bytes:,} "
                f"bytes, and there are {size:,}"
            )
        self.is_mapped = path is not None and self.bytes > MEMORY_MAP_BYTES

    @contextlib.contextmanager
    def _open(self) -> Iterator[IO[bytes]]:
        """Opens the file after its header, and keeps what the header says."""
        with self._open_file() as file:
            self.shape, self._fortran, self.dtype = read_npy_header(file)
            yield file

    def read(self, limit: int | None = None) -> np.ndarray:
        """Reads the first rows only.

        Args:
            limit: int, the number of rows, or `None` for all.

        Returns:
            A writable array in C order and native byte order. A large array
            that isn't compressed is mapped into memory.

        Raises:
            ValueError: if the file ends early.
        """
        shape = self.shape
        # In Fortran order, rows are not contiguous.
        if limit is not None and shape and not self._fortran:
            shape = (min(limit, shape[0]), *shape[1:])
        array: np.ndarray
        if self._path is not None and self.is_mapped and shape == self.shape:
            # Copy on write keeps it writable, as PyTorch requires.
            array = np.memmap(
                self._path,
                self.dtype,
                "c",
                self._offset,
                shape,
                "F" if self._fortran else "C",
            )
        else:
            array = np.empty(math.prod(shape), self.dtype)
            with self._open() as file:
                _fill(file, array.view("uint8").data)
            array = array.reshape(shape, order="F" if self._fortran else "C")
        if limit is not None and array.ndim:
            array = array[:limit]
        return native(array, "C")


def native(array: np.ndarray, order: Any = "K") -> np.ndarray:
    """Returns an array in this machine's byte order, copied if need be.

    Args:
        array: NumPy array.
        order: the argument of `np.ndarray.astype`.
    """
    return array.astype(array.dtype.newbyteorder("="), order, copy=False)


def _fill(file: IO[bytes], buffer: memoryview) -> None:
    """Fills a buffer from a file without an intermediate copy."""
    start = 0
    while start < len(buffer):
        part = buffer[start : start + _CHUNK_BYTES]
        count = file.readinto(part)  # type: ignore[attr-defined]
        if not count:
            raise ValueError("it ends early")
        start += count


class ArrayFile:
    """The arrays in a file, by name.

    Args:
        path: path of an `.npz` file, or of an `.npy` file, whose only array
            has the name `""`.

    Raises:
        OSError: if the file can't be read.
        zipfile.BadZipFile: if an `.npz` file is damaged.

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
        """Returns the array of a name, after reading its header."""
        if self._archive is None:
            size = os.path.getsize(self.path)
            return StoredArray(lambda: open(self.path, "rb"), size, self.path)
        archive, member = self._archive, self._members[name]
        info = archive.getinfo(member)
        place: tuple = ()
        if info.compress_type == zipfile.ZIP_STORED:
            place = self.path, self._start(info)
        return StoredArray(lambda: archive.open(member), info.file_size, *place)

    def _start(self, info: zipfile.ZipInfo) -> int:
        """Returns where the content of a member begins in the archive."""
        with open(self.path, "rb") as file:
            # The local header: 30 bytes, which end with the lengths of the
            # name and of the extra field that follow it.
            file.seek(info.header_offset + 26)
            name, extra = struct.unpack("<HH", file.read(4))
        return info.header_offset + 30 + name + extra
