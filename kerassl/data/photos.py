"""Encoded images, decoded when they are needed: resized, or cut into views."""

import contextlib
import copy
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self, TypeAlias

import numpy as np

from kerassl.data.cuts import CropPlan, CutOut, Maker, Resized
from kerassl.data.decoders import RGB, Decoder
from kerassl.data.remote import AT_ONCE
from kerassl.data.row_groups import RowGroups
from kerassl.data.shared import Layout
from kerassl.data.spread import spread
from kerassl.data.threads import Threads
from kerassl.data.workers import FEWEST_IMAGES, workers

DEFAULT_SIZE = 224
# How many unreadable images are named, one by one, while they are used.
_WARNINGS = 20

_logger = logging.getLogger("kerassl")

# Selects some images.
Index: TypeAlias = int | np.integer | slice | Sequence[int] | np.ndarray | tuple


class Photos:
    """Encoded images that look like one array of shape `(N, H, W, C)`.

    An index, a slice or an array of indices decodes those images, in threads:
    the short side is resized, and the center cropped. `read_cuts` cuts views
    out of the whole photos instead. If an image can't be decoded, the log names
    it and the next readable one takes its place, of the same class if possible.

    Photos can be copied, pickled, and used in forked processes, such as the
    workers of a PyTorch `DataLoader`.

    Args:
        records: `Records`, where the encoded images are.
        size: tuple `(height, width)`, to which images are resized.
        labels: int array of shape `(N,)`, or `None`.
    """

    ndim = 4

    def __init__(
        self,
        records: Any,
        size: tuple[int, int],
        labels: np.ndarray | None = None,
    ):
        self.records = records
        self.size = size
        self.labels = labels
        #: How an image is read, which `decoder_for` decides.
        self.decoder: Decoder = RGB()
        #: What is missing of the source or of the images, in words.
        self.notes: list[str] = []
        #: A name of the source that will never mean other images, if it has
        #: one.
        self.pinned: str | None = None
        #: How to find the same images again, and faster: it has the method
        #: `save(path)`. Of images that were just found.
        self.listing: Any = None
        # All images, resized, if they are few.
        self._decoded: np.ndarray | None = None
        self._stand_ins: dict[int, int] = {}
        # Those that end the process which decodes them, and those that were
        # tried as stand-ins.
        self._deadly: set[int] = set()
        self._unfit: set[int] = set()
        # Requests wait; decoding computes.
        self._threads = Threads(AT_ONCE if records.is_remote else None)

    def __getstate__(self) -> dict[str, Any]:
        """Returns the state without the listing, also for copies."""
        return {**vars(self), "listing": None}

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape `(N, height, width, channels)`."""
        return (len(self.records), *self.size, self.decoder.channels)

    @property
    def dtype(self) -> np.dtype:
        """That of the decoded images, uint8 or float32."""
        return np.dtype(self.decoder.dtype)

    @property
    def in_memory(self) -> bool:
        """Whether the resized images are in memory."""
        return self._decoded is not None

    def names(self) -> list[str]:
        """Returns what messages call each image, such as its path."""
        return [self.records.name(i) for i in range(len(self))]

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self.records)

    def __getitem__(self, index: Index) -> np.ndarray:
        """Returns one image, or an array of the selected images."""
        if isinstance(index, tuple):  # Of rows, columns and channels too.
            rows = slice(None) if index[0] is Ellipsis else index[0]
            images = self[rows]
            if images.ndim == 3:  # One row.
                return images[index[1:]]
            first = ... if index[0] is Ellipsis else slice(None)
            return images[(first, *index[1:])]
        indices = np.arange(len(self))[index]
        if indices.ndim == 0:
            return self.read(indices[None])[0][0]
        return self.read(indices)[0]

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        """Returns all images, for NumPy."""
        return self[:] if dtype is None else self[:].astype(dtype, copy=False)

    def select(self, index: slice | Sequence[int] | np.ndarray) -> Self:
        """Returns some of the photos, without decoding them."""
        indices = np.arange(len(self))[index]
        selected = copy.copy(self)
        selected.records = self.records.select(indices)
        selected._stand_ins = {}
        selected._deadly, selected._unfit = set(), set()
        if self.labels is not None:
            selected.labels = self.labels[indices]
        if self._decoded is not None:
            selected._decoded = self._decoded[index]
        return selected

    def read(
        self, indices: Sequence[int] | np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Decodes images: the short side resized, the center cropped.

        Args:
            indices: int array of shape `(n,)`.

        Returns:
            A pair: images `(n, H, W, C)`, and the index of each. The indices
            differ from `indices` where an image couldn't be read and another
            one replaces it.

        Raises:
            ValueError: if no image can be read any more.
        """
        if self._decoded is not None:
            return self._decoded[indices], np.array(indices)
        make = Resized(self.size, self.decoder)
        arrays, used = self._make(indices, self.layout(len(indices)), make)
        return arrays["image"], used

    def read_cuts(
        self,
        indices: Sequence[int] | np.ndarray,
        plan: CropPlan,
        uniforms: np.ndarray,
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Decodes images, and cuts views out of the whole photos.

        Args:
            indices: int array of shape `(n,)`.
            plan: `CropPlan`.
            uniforms: float array `(n, plan.num_uniforms)` in [0, 1).

        Returns:
            A pair: a dict of the views' names to arrays
            `(n, size, size, C)`, and the index of each image, as in `read`.

        Raises:
            ValueError: if no image can be read any more.
        """
        layout = self.layout(len(indices), plan)
        return self._make(indices, layout, CutOut(plan, uniforms, self.decoder))

    def layout(self, count: int, plan: CropPlan | None = None) -> Layout:
        """Returns the shape and the dtype of the arrays of some images.

        Args:
            count: int, the number of images.
            plan: `CropPlan`, or `None` for resized images.
        """
        channels, dtype = self.decoder.channels, self.decoder.dtype
        if plan is None:
            return {"image": ((count, *self.size, channels), dtype)}
        return {
            name: ((count, size, size, channels), dtype)
            for name, size in plan.sizes.items()
        }

    def _make(
        self,
        indices: Sequence[int] | np.ndarray,
        layout: Layout,
        make: Maker,
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Fills a row of each array for each image; returns the indices used.

        Processes do it if there are many images. What they can't read, threads
        try again, since this process may know more formats; but not images that
        ended a process.
        """
        pool = workers() if len(self) >= FEWEST_IMAGES else None
        used = np.array(indices)
        for row in np.flatnonzero(np.isin(used, list(self._deadly))).tolist():
            used[row] = self._stand_ins[int(used[row])]
        ended: dict[int, str] = {}
        if pool is not None and len(indices) > 1:
            arrays, left, ended = pool.make(self.records, used, layout, make)
        else:
            arrays = {n: np.empty(s, dtype) for n, (s, dtype) in layout.items()}
            left = list(range(len(indices)))

        def fill(index: int, row: int) -> None:
            made: Sequence[np.ndarray]
            if row not in ended or pool is None:
                made = make(self.records.source(index), row)
            else:  # What is next to it may be of its kind.
                found, *failed = pool.make(
                    self.records,
                    [index],
                    {n: ((1, *s[1:]), d) for n, (s, d) in layout.items()},
                    make.part(row, row + 1),
                )
                if any(failed):
                    raise OSError(failed)
                made = [array[0] for array in found.values()]
            for array, value in zip(arrays.values(), made):
                array[row] = value

        def task(row: int) -> None:
            fill(int(used[row]), row)

        for row, error in (self.attempt(task, left) | ended).items():
            bad = int(used[row])
            if bad not in self._stand_ins:
                self._warn_of(bad, error)
            used[row] = self._replace(bad, row, fill)
            if row in ended:
                self._deadly.add(bad)
        return arrays, used

    def _warn_of(self, bad: int, error: str) -> None:
        """Names an unreadable image; of very many only some, and how many."""
        count = len(self._stand_ins) + 1
        if count <= _WARNINGS or count.bit_count() == 1:
            _logger.warning(
                "Can't read image %r (%s); another one replaces it.%s",
                self.records.name(bad),
                error,
                f" So far these are {count:,} images." * (count > _WARNINGS),
            )

    def attempt(
        self, task: Callable[[int], None], numbers: Iterable[int]
    ) -> dict[int, str]:
        """Runs a task for each number; returns error messages by number."""

        def attempt(number: int) -> tuple[int, str] | None:
            try:
                task(number)
            # Pillow may raise almost anything on a damaged file.
            except Exception as error:
                return int(number), _describe(error)
            return None

        numbers = list(numbers)
        # One image needs no thread; `DataLoader` workers read one at a time.
        run = map if len(numbers) == 1 else self._threads.map
        return dict(filter(None, run(attempt, numbers)))

    def _replace(
        self, bad: int, row: int, fill: Callable[[int, int], None]
    ) -> int:
        """Fills a row with another image; returns its index."""
        known = self._stand_ins
        if bad in known and self._fits(known[bad], row, fill):
            return known[bad]
        others = np.roll(np.arange(len(self)), -bad - 1)[:-1]
        if self.labels is not None:
            same = self.labels[others] == self.labels[bad]
            others = np.concatenate([others[same], others[~same]])
        for other in others.tolist():
            if other in known or other in self._unfit:
                continue
            if self._fits(other, row, fill):
                known[bad] = other
                return other
            self._unfit.add(other)
        raise ValueError(
            f"None of the {len(self):,} images can be read any more. The first "
            f"is {self.records.name(0)!r}"
        )

    def _fits(
        self, other: int, row: int, fill: Callable[[int, int], None]
    ) -> bool:
        """Fills a row with an image, if it can be read."""
        with contextlib.suppress(Exception):
            fill(other, row)
            return True
        return False

    def spread(self, most: int) -> np.ndarray:
        """Returns at most so many indices, evenly spaced."""
        if isinstance(self.records, RowGroups):
            return self.records.sample(most)
        return spread(len(self), most)

    def limited(self, limit: int | None) -> Self:
        """Returns at most so many photos, evenly spaced."""
        if limit is None or limit >= len(self):
            return self
        return self.select(self.spread(limit))

    def permutation(self, rng: np.random.Generator) -> np.ndarray:
        """Returns the images in a random order, which reads each once."""
        if isinstance(self.records, RowGroups):
            return self.records.permutation(rng)
        return rng.permutation(len(self))

    def expect(self, indices: np.ndarray, batch_size: int) -> None:
        """Begins to read what is needed next; see `RowGroups.expect`."""
        if isinstance(self.records, RowGroups):
            self.records.expect(indices, batch_size)

    def with_notes(
        self, notes: Sequence[str], decoded: np.ndarray | None
    ) -> Self:
        """Returns the same photos with more notes.

        Args:
            notes: what there is to say of them.
            decoded: array of all images, to keep in memory, or `None`.
        """
        noted = copy.copy(self)
        noted.notes = [*self.notes, *notes]
        noted._decoded = decoded
        return noted


def _describe(error: Exception) -> str:
    # One line is enough: Pillow repeats the path.
    text = str(error).split("\n")[0][:120]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
