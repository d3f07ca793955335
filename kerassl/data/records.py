"""Where encoded images are stored: one by one, by number."""

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
