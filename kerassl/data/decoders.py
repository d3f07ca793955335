"""What turns an encoded image into an array."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from kerassl.data.decode import (
    Cut,
    Source,
    decode_cuts,
    decode_image,
    decode_opened,
    open_image,
    reductions,
)

#: Returns the boxes to cut, of an upright image's height and width in pixels.
Plan = Callable[[int, int], Sequence[Cut]]


class Decoder(Protocol):
    """Decodes images: values in [0, 255], one number of channels.

    Decoders are compared, pickled and used by several threads at once.

    Attributes:
        channels: int, how many channels the arrays have.
        dtype: `"uint8"` or `"float32"`, that of the arrays.
    """

    @property
    def channels(self) -> int:
        """How many channels the arrays have."""

    @property
    def dtype(self) -> str:
        """`"uint8"` or `"float32"`, that of the arrays."""

    def image(self, source: Source, size: tuple[int, int]) -> np.ndarray:
        """Returns an image, the short side resized, the center cropped.

        Args:
            source: path of the file, or its bytes as an open file.
            size: tuple `(height, width)`.

        Returns:
            An array `(height, width, channels)`.

        Raises:
            OSError: if the file is not a regular file or can't be read.
            ValueError: if it can't be decoded to such an array.
        """

    def cuts(self, source: Source, plan: Plan) -> list[np.ndarray]:
        """Returns boxes of the whole image, each `(size, size, channels)`.

        Args:
            source: as in `image`.
            plan: function of the upright image's height and width.

        Raises:
            OSError: as `image`.
            ValueError: as `image`.
        """

    def checked(
        self, source: Source, size: tuple[int, int]
    ) -> tuple[np.ndarray, list[str]]:
        """Returns what `image` and `losses` do."""

    def losses(self, source: Source, size: tuple[int, int]) -> list[str]:
        """Returns what `image` discards, in words, by reading the header."""


@dataclasses.dataclass(frozen=True)
class RGB:
    """Decodes photos with Pillow, to RGB of 8 bits a channel."""

    channels = 3
    dtype = "uint8"

    def image(self, source: Source, size: tuple[int, int]) -> np.ndarray:
        """Returns an image; see `Decoder`."""
        return decode_image(source, size)

    def cuts(self, source: Source, plan: Plan) -> list[np.ndarray]:
        """Returns boxes of the whole image; see `Decoder`."""
        return decode_cuts(source, plan)

    def checked(
        self, source: Source, size: tuple[int, int]
    ) -> tuple[np.ndarray, list[str]]:
        """Returns an image, and what it lost; see `Decoder`."""
        with open_image(source, size) as file:
            lost = reductions(file)  # Unknown once it is decoded.
            return decode_opened(file, size), lost

    def losses(self, source: Source, size: tuple[int, int]) -> list[str]:
        """Returns what an image will lose; see `Decoder`."""
        with open_image(source, size) as file:
            return reductions(file)
