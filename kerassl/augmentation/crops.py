"""The first crops of views, which are cut on the host for photos of any size.

Photos of different sizes don't fit into one array. So their crops are cut while
they are decoded, with the boxes that `RandomResizedCrop` would draw from the
whole photo, and the other operations follow on the device.
"""

from collections.abc import Mapping

from kerassl.augmentation.operation import Operation
from kerassl.augmentation.operations import RandomResizedCrop, Resize
from kerassl.augmentation.pipeline import Pipeline
from kerassl.data.cuts import Crop, CropPlan


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
        if type(first) is RandomResizedCrop:
            crops[name] = Crop(
                first.size,
                first.interpolation,
                first.area,
                first.ratio,
                first.num_uniforms,
            )
        elif type(first) is Resize:
            crops[name] = Crop(
                first.size,
                first.interpolation,
                num_uniforms=first.num_uniforms,
            )
        else:
            return None
    return CropPlan(crops)
