"""Arrays in Zarr stores, of version 2 and 3."""

from pathlib import Path
from typing import Any

import numpy as np

from kerassl.data.stored import native

SUFFIX = ".zarr"


class ZarrArray:
    """An array of a Zarr store, with the interface of `StoredArray`.

    Args:
        array: `zarr.Array`.

    Attributes:
        shape: tuple.
        dtype: `np.dtype`.
        is_mapped: `False`: it is stored in chunks.
    """

    is_mapped = False

    def __init__(self, array: Any):
        self._array = array
        self.shape = tuple(array.shape)
        self.dtype = np.dtype(array.dtype)

    def read(self, limit: int | None = None) -> np.ndarray:
        """Reads the chunks of the first rows only, as `StoredArray.read`."""
        array = np.asarray(
            self._array[:limit] if self.shape else self._array[()]
        )
        return native(array, "C")


class ZarrStore:
    """The arrays of a Zarr store's first level, as `ArrayFile` has them.

    Args:
        path: path of the store, a folder. A store may be one array, whose
            name is then `""`.

    Raises:
        ImportError: if zarr isn't installed.
        Exception: of many kinds, if the store can't be read.
    """

    def __init__(self, path: Path):
        import zarr

        self.path = path
        found: Any = zarr.open(str(path), mode="r")
        if isinstance(found, zarr.Array):
            self._arrays = {"": found}
        else:
            self._arrays = dict(found.arrays())
        self.names = list(self._arrays)

    def __getitem__(self, name: str) -> ZarrArray:
        """Returns the array of a name, whose metadata has been read."""
        return ZarrArray(self._arrays[name])
