"""Processes that train together must read batches of the same sizes."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from kerassl.distributed import device_count, from_all_processes, process
from kerassl.training.forms import batch_sizes, is_loader

UNKNOWN = -1


def check_lockstep(
    x: Any,
    batch_size: int | None = None,
    validation_split: float = 0.0,
    steps: int | None = None,
) -> None:
    """Refuses data with which some processes would wait for others forever.

    Batches of data sets whose length is unknown are checked as they are read;
    see `kerassl.distributed.in_step`.

    Args:
        x: the data of this process.
        batch_size: the argument of `fit`, for arrays.
        validation_split: the argument of `fit`, for arrays.
        steps: int, the number of batches in an epoch, or `None` for all.

    Raises:
        ValueError: in all processes, if they would take different steps.
    """
    if process()[1] == 1 or device_count() == 1:
        return
    count = steps or _count(x, batch_size, validation_split)
    sizes = batch_sizes(x, batch_size, validation_split)
    first, last = (sizes[0], sizes[-1]) if sizes else (None, None)
    found = from_all_processes(
        [UNKNOWN if n is None else n for n in (count, first, last)]
    )
    if any(len(set(numbers) - {UNKNOWN}) > 1 for numbers in zip(*found)):
        raise ValueError(
            "All processes must read as many batches, of the same sizes. "
            f"Found, by process: {'; '.join(map(_described, found))}."
        )


def _count(x: Any, batch_size: int | None, split: float) -> int | None:
    """Returns the number of batches in an epoch, if it is known."""
    if isinstance(x, Mapping):
        x = x["image"] if "image" in x else next(iter(x.values()), None)
    if isinstance(x, keras.utils.PyDataset):
        return x.num_batches
    if hasattr(x, "element_spec"):  # tf.data
        count = int(x.cardinality()) if hasattr(x, "cardinality") else UNKNOWN
        return count if count >= 0 else None
    if is_loader(x):
        return len(x) if hasattr(x.dataset, "__len__") else None
    if not hasattr(x, "shape"):
        return None
    return math.ceil(math.floor(len(x) * (1 - split)) / (batch_size or 32))


def _described(numbers: Sequence[int]) -> str:
    count, first, last = numbers
    text = "batches" if count == UNKNOWN else f"{count} batches"
    if first != UNKNOWN:
        text += f" of {first}"
    return text if last == first else f"{text}, the last of {last}"
