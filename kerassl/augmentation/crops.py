"""The first crops of views, drawn on the host for photos of any size.

Photos of different sizes don't fit into one array. So their crops are cut while
they are decoded, with the boxes that `RandomResizedCrop` would draw from the
whole photo, and the other operations follow on the device.
"""

import math
from collections.abc import Mapping, Sequence

from kerassl.augmentation.geometry import CANDIDATES
from kerassl.augmentation.operation import Operation
from kerassl.augmentation.operations import RandomResizedCrop, Resize
from kerassl.augmentation.pipeline import Pipeline
from kerassl.data.decode import Cut

# A box: top, left, height and width in pixels.
Box = tuple[int, int, int, int]


class CropPlan:
    """Where the views of a photo are cut: a pure function of random numbers.

    Args:
        crops: dict of the views' names to their first operation, a
            `RandomResizedCrop` or a `Resize`.

    Attributes:
        sizes: dict of the names to the crops' height and width.
        num_uniforms: int, how many random numbers a photo needs.
    """

    def __init__(self, crops: Mapping[str, RandomResizedCrop | Resize]):
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
            height: int, the photo's, in pixels.
            width: int.
        """
        cuts, first = [], 0
        for crop in self.crops.values():
            box = (0, 0, height, width)
            if isinstance(crop, RandomResizedCrop):
                numbers = uniforms[first : first + crop.num_uniforms]
                box = draw_box(numbers, height, width, crop.area, crop.ratio)
            first += crop.num_uniforms
            cuts.append(Cut(*box, crop.size, crop.interpolation))
        return cuts


def crop_plan(pipelines: Mapping[str, Pipeline]) -> CropPlan | None:
    """Returns where the pipelines cut photos first.

    Args:
        pipelines: dict of the views' names to their pipelines.

    Returns:
        A `CropPlan`; or `None` if one doesn't begin with a `RandomResizedCrop`
        or a `Resize`.
    """
    crops = {}
    for name, pipeline in pipelines.items():
        first: Operation | None = next(iter(pipeline.operations), None)
        # A subclass may draw other boxes.
        if type(first) not in (RandomResizedCrop, Resize):
            return None
        crops[name] = first
    return CropPlan(crops)  # type: ignore[arg-type]


def draw_box(
    uniforms: Sequence[float],
    height: int,
    width: int,
    area: tuple[float, float],
    ratio: tuple[float, float],
) -> Box:
    """Draws the box of one photo, as `geometry.draw_box` does for a batch.

    Args:
        uniforms: numbers in [0, 1), in the order of
            `RandomResizedCrop.uniforms`.
        height: int, the photo's, in pixels.
        width: int.
        area: (low, high) share of the photo.
        ratio: (low, high) width over height.

    Returns:
        Top, left, height and width in pixels.
    """
    top, left = uniforms[-2:]
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for i in range(CANDIDATES):
        share = area[0] + (area[1] - area[0]) * uniforms[i]
        shape = math.exp(low + (high - low) * uniforms[CANDIDATES + i])
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
