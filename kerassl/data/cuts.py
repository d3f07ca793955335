"""Where views are cut out of photos, and what becomes of each photo.

This module is light, since processes that only decode import it.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, Self

import numpy as np

from kerassl.data.decode import Cut, Source
from kerassl.data.decoders import RGB, Decoder

# A box: top, left, height and width in pixels.
Box = tuple[int, int, int, int]


class Crop(NamedTuple):
    """How a view is cut out of a photo.

    Args:
        size: int > 0, the height and width of the view.
        interpolation: `"bilinear"` or `"bicubic"`.
        area: (low, high) share of the photo; or `None` for all of it.
        ratio: (low, high) width over height.
        num_uniforms: int, how many random numbers `draw_box` gets.
    """

    size: int
    interpolation: str = "bilinear"
    area: tuple[float, float] | None = None
    ratio: tuple[float, float] = (1.0, 1.0)
    num_uniforms: int = 0


class CropPlan:
    """Where the views of a photo are cut: a pure function of random numbers.

    Args:
        crops: dict of the views' names to a `Crop`.

    Attributes:
        sizes: dict of the names to the crops' height and width.
        num_uniforms: int, how many random numbers a photo needs.
    """

    def __init__(self, crops: Mapping[str, Crop]):
        self.crops = dict(crops)
        self.sizes: Mapping[str, int] = {
            name: crop.size for name, crop in crops.items()
        }
        self.num_uniforms = sum(c.num_uniforms for c in crops.values())

    def cuts(
        self, uniforms: Sequence[float], height: int, width: int
    ) -> list[Cut]:
        """Returns the box of each view.

        Args:
            uniforms: `num_uniforms` numbers in [0, 1).
            height: int, the upright photo's, in pixels.
            width: int.
        """
        cuts, first = [], 0
        for crop in self.crops.values():
            box = (0, 0, height, width)
            if crop.area is not None:
                numbers = uniforms[first : first + crop.num_uniforms]
                box = draw_box(numbers, height, width, crop.area, crop.ratio)
            first += crop.num_uniforms
            cuts.append(Cut(*box, crop.size, crop.interpolation))
        return cuts


def draw_box(
    uniforms: Sequence[float],
    height: int,
    width: int,
    area: tuple[float, float],
    ratio: tuple[float, float],
) -> Box:
    """Draws the box of a photo, as `augmentation.geometry` does for a batch.

    Args:
        uniforms: numbers in [0, 1), in the order of
            `RandomResizedCrop.uniforms`: areas and ratios of the candidates,
            top and left.
        height: int, the photo's, in pixels.
        width: int.
        area: (low, high) share of the photo.
        ratio: (low, high) width over height.

    Returns:
        Top, left, height and width in pixels.
    """
    top, left = uniforms[-2:]
    candidates = len(uniforms) // 2 - 1
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for i in range(candidates):
        share = area[0] + (area[1] - area[0]) * uniforms[i]
        shape = math.exp(low + (high - low) * uniforms[candidates + i])
        rows = round(math.sqrt(share * height * width / shape))
        columns = round(math.sqrt(share * height * width * shape))
        if 1 <= rows <= height and 1 <= columns <= width:
            return (
                int(top * (height - rows + 1)),
                int(left * (width - columns + 1)),
                rows,
                columns,
            )
    # None fits: the largest box with an allowed ratio, at the center.
    rows = max(1, min(height, round(width / ratio[0])))
    columns = max(1, min(width, round(height * ratio[1])))
    return (height - rows) // 2, (width - columns) // 2, rows, columns


class Maker(Protocol):
    """Makes arrays of encoded images; can be pickled."""

    def __call__(self, source: Source, row: int) -> Sequence[np.ndarray]:
        """Returns the arrays of the image in a row of the batch."""

    def part(self, first: int, stop: int) -> Self:
        """Returns the maker for some rows, of which the first is number 0."""


@dataclasses.dataclass(frozen=True)
class Resized:
    """Resizes the short side of images, and crops the center.

    Args:
        size: tuple `(height, width)`.
        decoder: `Decoder`.
    """

    size: tuple[int, int]
    decoder: Decoder = RGB()

    def __call__(self, source: Source, row: int) -> list[np.ndarray]:
        """Returns the image alone in a list."""
        return [self.decoder.image(source, self.size)]

    def part(self, first: int, stop: int) -> "Resized":
        """Returns itself: all rows are made alike."""
        return self


@dataclasses.dataclass(frozen=True)
class CutOut:
    """Cuts views out of whole photos.

    Args:
        plan: `CropPlan`.
        uniforms: float array `(n, plan.num_uniforms)` in [0, 1).
        decoder: `Decoder`.
    """

    plan: "CropPlan"
    uniforms: np.ndarray
    decoder: Decoder = RGB()

    def __call__(self, source: Source, row: int) -> list[np.ndarray]:
        """Returns the views."""
        numbers = self.uniforms[row].tolist()
        return self.decoder.cuts(
            source,
            lambda height, width: self.plan.cuts(numbers, height, width),
        )

    def part(self, first: int, stop: int) -> "CutOut":
        """Returns the maker for some rows."""
        return CutOut(self.plan, self.uniforms[first:stop], self.decoder)
