"""Decodes images of any number of channels and bits."""

import dataclasses
from typing import Any

import numpy as np

from kerassl.data.decode import Cut, Source
from kerassl.data.decoders import Plan
from kerassl.data.image_files import read_header, read_pixels
from kerassl.value_range import ValueRange


@dataclasses.dataclass(frozen=True)
class Planes:
    """Decodes images of one number of channels; see `Decoder`.

    Args:
        channels: int. For 3, the channel of gray images is repeated.
        dtype: `"uint8"`, which refuses all other images, or `"float32"`.
        value_range: `ValueRange`, or `None` for what each file or its dtype
            says.
    """

    channels: int
    dtype: str
    value_range: ValueRange | None = None

    def image(self, source: Source, size: tuple[int, int]) -> np.ndarray:
        """Returns an image; see `Decoder`."""
        from PIL import Image, ImageOps

        return self._resampled(
            [
                ImageOps.fit(plane, size[::-1], Image.Resampling.BILINEAR)
                for plane in _planes(self.levels(source))
            ]
        )

    def cuts(self, source: Source, plan: Plan) -> list[np.ndarray]:
        """Returns boxes of the whole image; see `Decoder`."""
        levels = self.levels(source)
        planes = _planes(levels)
        return [
            self._resampled([_cut(plane, cut) for plane in planes])
            for cut in plan(*levels.shape[:2])
        ]

    def checked(
        self, source: Source, size: tuple[int, int]
    ) -> tuple[np.ndarray, list[str]]:
        """Returns an image, and what isn't read of it; see `Decoder`."""
        lost = self.losses(source, size)
        return self.image(source, size), lost

    def losses(self, source: Source, size: tuple[int, int]) -> list[str]:
        """Returns what isn't read of an image; see `Decoder`."""
        header = read_header(source)
        self._check(header.channels)
        return list(header.lost)

    def levels(self, source: Source) -> np.ndarray:
        """Returns the whole image, `(H, W, channels)` in [0, 255].

        Raises:
            OSError: if the file can't be read.
            ValueError: if it has other channels, or its range isn't known.
        """
        found = read_pixels(source)
        self._check(found.values.shape[-1])
        x = found.levels(self.value_range)
        if self.dtype == "uint8" and x.dtype != np.uint8:
            raise ValueError(
                f"{found.values.dtype.name} pixels, where the others are uint8"
            )
        return np.broadcast_to(x, (*x.shape[:2], self.channels))

    def _check(self, channels: int) -> None:
        if channels != self.channels and (channels, self.channels) != (1, 3):
            raise ValueError(
                f"{channels} channels, where {self.channels} are needed"
            )

    def _resampled(self, planes: list[Any]) -> np.ndarray:
        # Bicubic weights overshoot.
        x = np.clip(np.stack([np.asarray(p) for p in planes], -1), 0, 255)
        return x.astype(self.dtype, copy=False)


def _planes(levels: np.ndarray) -> list[Any]:
    """Returns each channel as an image of Pillow."""
    from PIL import Image

    return [
        Image.fromarray(np.ascontiguousarray(levels[..., channel]))
        for channel in range(levels.shape[-1])
    ]


def _cut(plane: Any, cut: Cut) -> Any:
    from PIL import Image

    return plane.resize(
        (cut.size, cut.size),
        Image.Resampling[cut.interpolation.upper()],
        (cut.left, cut.top, cut.left + cut.width, cut.top + cut.height),
    )
