"""Masks of patches in blocks, as functions of uniform numbers."""

import math
from typing import Any

from keras import ops

# The blocks that are drawn for a mask; those that are too many change nothing.
BLOCKS = 8
ASPECT = 0.3
#: How many uniform numbers a mask takes, besides one a patch.
UNIFORMS = 4 * BLOCKS


def block_masks(uniforms: Any, noise: Any, counts: Any, grid: int) -> Any:
    """Hides an exact number of patches, in random rectangles.

    Blocks of at least `(grid // 3) ** 2` patches and at most the wanted number
    are placed until enough patches are hidden; of the last one only random
    patches are, so that the number is exact. Random patches fill the rare rest.

    Args:
        uniforms: float32 tensor `(N, UNIFORMS)` in [0, 1).
        noise: float32 tensor `(N, grid * grid)` in [0, 1).
        counts: float32 tensor `(N,)`, how many patches to hide.
        grid: int, the number of patches in a row.

    Returns:
        A float32 tensor `(N, grid * grid)`: 1 is hidden.

    Reference:
        - [Bao et al., 2021, BEiT](https://arxiv.org/abs/2106.08254)
    """
    area, aspect, top, left = ops.split(uniforms, 4, axis=1)
    low = float((grid // 3) ** 2)
    area = low + area * ops.relu(counts[:, None] - low)
    ratio = ops.exp((2.0 * aspect - 1.0) * math.log(1.0 / ASPECT))
    height, width = (
        between(ops.round(ops.sqrt(area * x)), 1.0, float(grid))
        for x in (ratio, 1.0 / ratio)
    )
    places = ops.arange(grid, dtype="float32")
    rows, columns = (
        _inside(places, ops.floor(start * (grid + 1.0 - length)), length)
        for start, length in ((top, height), (left, width))
    )
    blocks = rows[..., :, None] * columns[..., None, :]
    blocks = ops.reshape(blocks, (-1, BLOCKS, grid * grid))
    # The first block that holds a patch; BLOCKS if none does.
    order = BLOCKS - ops.max(
        blocks * ops.arange(BLOCKS, 0, -1, dtype="float32")[:, None], axis=1
    )
    rank = ops.argsort(ops.argsort(order + noise, axis=1), axis=1)
    return ops.cast(ops.cast(rank, "float32") < counts[:, None], "float32")


def between(x: Any, low: float, high: float) -> Any:
    """Returns `ops.clip`, without sending numbers to the device."""
    return high - ops.relu(high - low - ops.relu(x - low))


def _inside(places: Any, start: Any, length: Any) -> Any:
    """Returns 1 for the places in `[start, start + length)`, else 0."""
    first, end = start[..., None], (start + length)[..., None]
    return ops.cast((places >= first) & (places < end), "float32")
