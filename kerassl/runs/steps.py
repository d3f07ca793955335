"""The number of steps in an epoch of a run."""

from typing import Any

from kerassl import distributed
from kerassl.recipes import Recipe


def steps_per_epoch(recipe: Recipe, data: Any) -> int:
    """Returns the number of full batches in an epoch.

    Raises:
        ValueError: if the batch size is larger than the data, or can't be
            divided among the devices.
    """
    count = len(data.images)
    if count < recipe.batch_size:
        raise ValueError(
            f"{count} images don't fill a batch of {recipe.batch_size}. Use a "
            f"batch size of at most {count} (--batch-size), or more images."
        )
    devices = distributed.batch_parts()
    if recipe.batch_size % devices:
        raise ValueError(
            f"A batch of {recipe.batch_size} images can't be divided among "
            f"{devices} devices. Choose a multiple of {devices}."
        )
    return count // recipe.batch_size
