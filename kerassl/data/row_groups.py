"""Images in Parquet files, of which a part is in memory at any time.

A Parquet file is read in row groups, of some hundred images each: one image
costs as much as its group. So an epoch's order goes from group to group, and
mixes the images of many.
"""

import collections
import io
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np

from kerassl.data.decode import Source
from kerassl.data.records import MOST_AT_ONCE
from kerassl.data.remote import AT_ONCE, is_url, open_file, patiently
from kerassl.data.spread import spread
from kerassl.data.threads import Threads

#: How many bytes of encoded images are mixed.
MIXED_BYTES = 2**30
_FEWEST_MIXED = 4
_MOST_AHEAD = 8
# Batches that are being read at the same time, and one more.
_BATCHES = 4
# A sample is taken from this many groups at least.
_SAMPLED = 8


class Column:
    """Encoded images in a column of bytes, in memory.

    Args:
        values: `pyarrow.ChunkedArray` of bytes.
        rows: int array, the rows that are used.
        source: str, what messages call the files.
    """

    is_remote = False

    def __init__(self, values: Any, rows: np.ndarray, source: str):
        self.values = values
        self.rows = rows
        self.where = source

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self.rows)

    def source(self, index: int) -> Source:
        """Returns the bytes of an image, as an open file."""
        value = self.values[int(self.rows[index])].as_py()
        if value is None:
            raise ValueError("no bytes")
        return io.BytesIO(value)

    def name(self, index: int) -> str:
        """Returns the files and the row."""
        return f"{self.where}[{self.rows[index]}]"

    def __getstate__(self) -> dict[str, Any]:
        """Returns the state with the images that are used only."""
        used = _column(self.values[int(row)].as_py() for row in self.rows)
        return {**vars(self), "values": used, "rows": np.arange(len(used))}

    def select(self, indices: Sequence[int] | np.ndarray) -> "Column":
        """Returns some of the images."""
        return Column(self.values, self.rows[indices], self.where)


class RowGroups:
    """Encoded images in Parquet files, read when they are needed.

    Args:
        files: the paths or URLs of the files.
        metadata: the `pyarrow.parquet.FileMetaData` of each.
        column: str, the name of the column of images.
        source: str, what messages call the files.
        sizes: int array, how many bytes the images of each group take.
    """

    def __init__(
        self,
        files: Sequence[str],
        metadata: Sequence[Any],
        column: str,
        source: str,
        sizes: Sequence[int],
    ):
        self.files = list(files)
        self.is_remote = any(map(is_url, self.files))
        self.metadata = list(metadata)
        self.column = column
        self.where = source
        # The file and the number of each group, and its first row.
        self.groups = [
            (file, group)
            for file, about in enumerate(metadata)
            for group in range(about.num_row_groups)
        ]
        counts = [
            metadata[file].row_group(group).num_rows
            for file, group in self.groups
        ]
        self.starts = np.cumsum([0, *counts])
        self._use(np.arange(self.starts[-1]))
        mean = max(1, sum(sizes) // max(1, len(sizes)))
        #: How many groups an epoch's order mixes.
        self.mixed = max(_FEWEST_MIXED, MIXED_BYTES // mean)
        #: How many groups to begin to read before they are needed.
        self.ahead = min(_MOST_AHEAD, max(1, self.mixed // 4))
        self._kept = Kept(self.mixed + self.ahead)
        self._threads = Threads(AT_ONCE)

    def _use(self, rows: np.ndarray) -> None:
        self.rows = rows
        groups = max(1, len(np.unique(self._group_of(rows))))
        # How many images that are used a group has.
        self._each = -(-len(rows) // groups)

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self.rows)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickles a few images, such as a task's, with their bytes."""
        if len(self) > MOST_AT_ONCE:
            return super().__reduce_ex__(protocol)
        values = _column(self._or_none(i) for i in range(len(self)))
        return Column, (values, np.arange(len(self)), self.where)

    def _or_none(self, index: int) -> bytes | None:
        try:
            return self._value(index)
        except Exception:
            return None  # Whoever asks for it again gets the error.

    def source(self, index: int) -> Source:
        """Returns the bytes of an image, as an open file."""
        value = self._value(index)
        if value is None:
            raise ValueError("no bytes")
        return io.BytesIO(value)

    def _value(self, index: int) -> bytes | None:
        row = int(self.rows[index])
        group = int(self._group_of(row))
        return self._group(group)[row - int(self.starts[group])].as_py()

    def _group(self, group: int) -> Any:
        return self._kept.get(group, lambda: self._read(group))

    def _group_of(self, rows: Any) -> Any:
        return np.searchsorted(self.starts, rows, "right") - 1

    def _read(self, group: int) -> Any:
        from pyarrow import parquet

        file, number = self.groups[group]

        def read() -> Any:
            with open_file(self.files[file], ahead=0) as opened:
                table = parquet.ParquetFile(
                    opened, metadata=self.metadata[file], pre_buffer=True
                ).read_row_group(number, columns=[self.column])
            return bytes_of(table[self.column])

        return patiently(read)

    def name(self, index: int) -> str:
        """Returns the files and the row."""
        return f"{self.where}[{self.rows[index]}]"

    def select(self, indices: Sequence[int] | np.ndarray) -> "RowGroups":
        """Returns some of the images; they share what is in memory."""
        selected = object.__new__(RowGroups)
        vars(selected).update(vars(self))
        selected._use(self.rows[indices])
        return selected

    def permutation(self, rng: np.random.Generator) -> np.ndarray:
        """Returns the images in a random order that needs few groups at once.

        The groups are in a random order, and each image is moved back by up
        to `mixed` groups. If there are no more than those, all orders are
        equally likely.
        """
        _, groups = np.unique(self._group_of(self.rows), return_inverse=True)
        count = int(groups.max(initial=-1)) + 1
        if count <= self.mixed:
            return rng.permutation(len(self))
        places = rng.permutation(count)[groups]
        return np.argsort(places + self.mixed * rng.random(len(self)))

    def sample(self, count: int) -> np.ndarray:
        """Returns the numbers of some images, evenly spaced in few groups."""
        groups = self._group_of(self.rows)
        found, sizes = np.unique(groups, return_counts=True)
        number = max(_SAMPLED, -(-count * len(found) // max(1, len(self))))
        chosen = np.array([], "int64")
        while len(chosen) < min(count, len(self)):
            number = min(number, len(found))
            some = found[spread(len(found), number)]
            chosen = np.flatnonzero(np.isin(groups, some))
            number += 1
        return chosen[spread(len(chosen), count)]

    def expect(self, indices: np.ndarray, batch_size: int) -> None:
        """Begins to read what is needed next.

        Args:
            indices: int array, the images of the rest of the epoch, in order.
            batch_size: int, how many of them are used at once.
        """
        mean = -(-int(self.starts[-1]) // len(self.groups))
        batches = _BATCHES * -(-batch_size // mean)
        self._kept.most = self.mixed + self.ahead + batches
        # Of a selection, the batches that are being read need more groups,
        # which would push out what is read ahead of them.
        more = _BATCHES * batch_size * (mean - self._each) // mean
        count = max(0, self.ahead * self._each - more)
        soon = self.rows[indices[:count]]
        for group in dict.fromkeys(self._group_of(soon).tolist()):
            if not self._kept.renew(group):
                self._threads.submit(self._group, group)


class Kept:
    """What was used last, shared by threads but not by processes.

    Args:
        most: int, how many things are kept.
    """

    def __init__(self, most: int):
        self.most = most
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._found: collections.OrderedDict[int, Future] = (
            collections.OrderedDict()
        )

    def __getstate__(self) -> dict[str, Any]:
        """Returns the state without what is kept."""
        return {"most": self.most}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Keeps nothing at first."""
        self.most = state["most"]
        self._begin()

    def renew(self, key: int) -> bool:
        """Keeps something as if it was just used; says whether it was there."""
        try:  # Without the lock, which may have been inherited.
            self._found.move_to_end(key)
        except KeyError:
            return False
        return True

    def get(self, key: int, make: Callable[[], Any]) -> Any:
        """Returns what is kept, or makes it; other threads wait for it."""
        if self._process != os.getpid():  # A lock may have been inherited.
            self._begin()
        with self._lock:
            future = self._found.pop(key, None)
            is_new = future is None
            if future is None:
                future = Future()
            self._found[key] = future
            while len(self._found) > self.most:
                self._found.popitem(last=False)
        if is_new:
            try:
                future.set_result(make())
            except BaseException as error:
                with self._lock:
                    self._found.pop(key, None)
                future.set_exception(error)
        return future.result()


def _column(values: Iterable[bytes | None]) -> Any:
    """Returns images as a column; `take` would first join all chunks."""
    import pyarrow as pa

    return pa.chunked_array([list(values)], pa.large_binary())


def bytes_of(values: Any) -> Any:
    """Returns a column of images as bytes: that, or their field `bytes`."""
    import pyarrow as pa

    if not pa.types.is_struct(values.type):
        return values
    chunks = [chunk.field("bytes") for chunk in values.chunks]
    return pa.chunked_array(chunks, values.type.field("bytes").type)
