"""Arrays in HDF5 files; those that aren't in chunks can be memory-mapped."""

import math
from pathlib import Path

import numpy as np

from kerassl.data import stored

SUFFIXES = (".h5", ".hdf5")


class HDF5Array:
    """A data set of an HDF5 file, with the interface of `StoredArray`.

    Args:
        path: path of the file.
        name: str, the data set's name.

    Attributes:
        shape: tuple.
        dtype: `np.dtype`.
        is_mapped: bool, whether `read` maps all of it into memory.
    """

    def __init__(self, path: Path, name: str):
        import h5py

        self._path, self._name = path, name
        with h5py.File(path, "r") as file:
            found = file[name]
            self.shape = tuple(found.shape)
            self.dtype = found.dtype
            is_whole = not (found.chunks or found.external or found.is_virtual)
            # Missing before anything was written.
            self._offset: int | None = (
                found.id.get_offset() if is_whole else None
            )
        size = math.prod(self.shape) * self.dtype.itemsize
        self.is_mapped = (
            self._offset is not None and size > stored.MEMORY_MAP_BYTES
        )

    def read(self, limit: int | None = None) -> np.ndarray:
        """Reads the first rows only, as `StoredArray.read` does."""
        import h5py

        count = self.shape[0] if self.shape else 0
        offset = self._offset if self.is_mapped else None
        if offset is not None and (limit is None or limit >= count):
            # Copy on write keeps it writable, as PyTorch requires.
            array: np.ndarray = np.memmap(
                self._path, self.dtype, "c", offset, self.shape
            )
        else:
            with h5py.File(self._path, "r") as file:
                array = file[self._name][:limit]
        return stored.native(array)


class HDF5File:
    """The arrays of an HDF5 file's first level, as `ArrayFile` has them.

    Args:
        path: path of the file.

    Raises:
        OSError: if the file can't be read.
    """

    def __init__(self, path: Path):
        import h5py

        self.path = path
        with h5py.File(path, "r") as file:
            self.names = [
                name
                for name, value in file.items()
                if isinstance(value, h5py.Dataset)
            ]

    def __getitem__(self, name: str) -> HDF5Array:
        """Returns the array of a name, after reading its header."""
        return HDF5Array(self.path, name)
