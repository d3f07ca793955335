"""Arrays that several processes read and write."""

import collections
import contextlib
import math
import mmap
import os
import tempfile
import weakref
from collections.abc import Mapping
from typing import TypeAlias

import numpy as np

# The shape and the dtype of arrays, by name.
Layout: TypeAlias = Mapping[str, tuple[tuple[int, ...], str]]

#: How much unused memory is kept, in pieces and in bytes.
MOST_FREE = 4
_MOST_BYTES = 2**30
_ALIGNMENT = 64


class Memory:
    """Memory that has a handle instead of a name.

    Nothing is left behind when the processes end, however they do.

    Args:
        size: int > 0, in bytes.
        handle: int, the file descriptor of another process's memory; by default
            there is new memory, filled with zeros.
    """

    def __init__(self, size: int, handle: int | None = None):
        self.size = size
        self.handle = _new(size) if handle is None else handle
        self._map = mmap.mmap(self.handle, size)

    def __del__(self) -> None:
        """Closes the handle. Arrays keep the memory."""
        if hasattr(self, "handle"):
            os.close(self.handle)

    def arrays(self, layout: Layout) -> dict[str, np.ndarray]:
        """Returns arrays in the memory."""
        starts, _ = _places(layout)
        return {
            name: np.ndarray(shape, dtype, self._map, starts[name])
            for name, (shape, dtype) in layout.items()
        }


class Memories:
    """Memory for arrays that is used again when the arrays are gone.

    The kernel takes as long to clear and free memory as to copy it. Up to 4
    unused pieces stay, of 1 GiB together, or one larger piece.
    """

    def __init__(self) -> None:
        self._free: collections.deque[Memory] = collections.deque()

    def take(self, layout: Layout) -> tuple[Memory, dict[str, np.ndarray]]:
        """Returns memory, and arrays in it, which hold any values."""
        size = size_of(layout)
        memory = None
        with contextlib.suppress(IndexError):
            while memory is None or memory.size != size:
                memory = self._free.popleft()
        if memory is None or memory.size != size:
            memory = Memory(size)
        arrays = memory.arrays(layout)
        # Views of an array keep the array.
        left = set(arrays)

        def gone(name: str, memory: Memory) -> None:
            left.discard(name)
            if not left:
                self._free.append(memory)
                most = max(1, min(MOST_FREE, _MOST_BYTES // memory.size))
                with contextlib.suppress(IndexError):
                    while len(self._free) > most:
                        self._free.popleft()

        for name, array in arrays.items():
            weakref.finalize(array, gone, name, memory).atexit = False
        return memory, arrays


def size_of(layout: Layout) -> int:
    """Returns how many bytes arrays take together."""
    return _places(layout)[1]


def _places(layout: Layout) -> tuple[dict[str, int], int]:
    starts, size = {}, 0
    for name, (shape, dtype) in layout.items():
        starts[name] = size
        used = math.prod(shape) * np.dtype(dtype).itemsize
        size += -(-used // _ALIGNMENT) * _ALIGNMENT
    return starts, max(size, 1)


def _new(size: int) -> int:
    """Returns a handle of new memory."""
    if hasattr(os, "memfd_create"):
        # Unlike /dev/shm, not limited to 64 MB in a container.
        handle = os.memfd_create("kerassl")
    else:
        handle, path = tempfile.mkstemp()
        os.unlink(path)
    os.truncate(handle, size)
    return handle
