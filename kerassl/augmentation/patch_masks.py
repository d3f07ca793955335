"""Masks of patches, as functions of uniform numbers."""

import math
from typing import Any

from keras import ops

# The blocks that are drawn for a mask; those that are too many change nothing.
BLOCKS = 8
ASPECT = 0.3
#: How many uniform numbers a mask takes, besides one a patch.
UNIFORMS = 4 * BLOCKS
#: The least and the largest height of I-JEPA's targets, over their width.
TARGET_ASPECT = (0.75, 1.5)


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
    blocks = _blocks(height, width, top, left, grid)
    # The first block that holds a patch; BLOCKS if none does.
    order = BLOCKS - ops.max(
        blocks * ops.arange(BLOCKS, 0, -1, dtype="float32")[:, None], axis=1
    )
    rank = ops.argsort(ops.argsort(order + noise, axis=1), axis=1)
    return ops.cast(ops.cast(rank, "float32") < counts[:, None], "float32")


def square_masks(noise: Any, count: int, size: int, grid: int) -> Any:
    """Hides random squares of patches, the same number in each image.

    Args:
        noise: float32 tensor `(N, S)` in [0, 1), for S squares that cover the
            patches. The last row and column of them may be cut.
        count: int, how many squares to hide: those with the smallest numbers.
        size: int > 0, the side of a square, in patches.
        grid: int, the number of patches in a row.

    Returns:
        A float32 tensor `(N, grid * grid)`: 1 is hidden.

    Reference:
        - [Xie et al., 2021, SimMIM](https://arxiv.org/abs/2111.09886)
    """
    side = math.isqrt(noise.shape[1])
    rank = ops.argsort(ops.argsort(noise, axis=1), axis=1)
    hidden = ops.cast(rank < count, "float32")
    hidden = ops.reshape(hidden, (-1, side, 1, side, 1))
    hidden = ops.tile(hidden, (1, 1, size, 1, size))
    hidden = ops.reshape(hidden, (-1, side * size, side * size))
    return ops.reshape(hidden[:, :grid, :grid], (-1, grid**2))


def target_blocks(uniforms: Any, count: int, grid: int) -> Any:
    """Chooses rectangles of patches, I-JEPA's targets.

    Args:
        uniforms: float32 tensor `(N, M, 3)` in [0, 1): aspect, row and column
            of M rectangles.
        count: int, the number of patches of each: the first ones, by rows, of
            the smallest rectangle of its height that has as many.
        grid: int, the number of patches in a row.

    Returns:
        An int tensor `(N, M, count)`, the indices of their patches, in order.

    Reference:
        - [Assran et al., 2023, I-JEPA](https://arxiv.org/abs/2301.08243)
    """
    aspect, top, left = (uniforms[..., i] for i in range(3))
    low, high = TARGET_ASPECT
    aspect = low + (high - low) * aspect
    height = between(ops.round(ops.sqrt(count * aspect)), 1.0, float(grid))
    width = ops.ceil(count / height - 1e-4)
    blocks = _blocks(height, width, top, left, grid)
    order = ops.arange(grid * grid, dtype="float32")
    # Patches inside come first, each part in order.
    keys = order - grid * grid * ops.reshape(
        blocks, (-1, uniforms.shape[1], grid * grid)
    )
    return ops.argsort(keys, axis=-1)[..., :count]


def context_patches(noise: Any, targets: Any, count: int) -> Any:
    """Chooses random patches that belong to no target.

    Args:
        noise: float32 tensor `(N, L)` in [0, 1).
        targets: int tensor `(N, M, T)` that `target_blocks` returned.
        count: int, at most L - M * T.

    Returns:
        An int tensor `(N, count)`, the indices of patches.
    """
    flat = ops.reshape(targets, (-1, targets.shape[1] * targets.shape[2]))
    places = ops.arange(noise.shape[1], dtype=flat.dtype)
    taken = ops.any(ops.equal(flat[..., None], places), axis=1)
    return ops.argsort(noise + ops.cast(taken, "float32"), axis=1)[:, :count]


def _blocks(height: Any, width: Any, top: Any, left: Any, grid: int) -> Any:
    """Returns rectangles `(N, M, grid * grid)` of ones.

    Args:
        height: float32 tensor `(N, M)`, whole numbers.
        width: likewise.
        top: float32 tensor `(N, M)` in [0, 1), where it lies.
        left: likewise.
        grid: int, the number of patches in a row.
    """
    places = ops.arange(grid, dtype="float32")
    rows, columns = (
        _inside(places, ops.floor(start * (grid + 1.0 - length)), length)
        for start, length in ((top, height), (left, width))
    )
    blocks = rows[..., :, None] * columns[..., None, :]
    return ops.reshape(blocks, (-1, height.shape[1], grid * grid))


def between(x: Any, low: float, high: float) -> Any:
    """Returns `ops.clip`, without sending numbers to the device."""
    return high - ops.relu(high - low - ops.relu(x - low))


def _inside(places: Any, start: Any, length: Any) -> Any:
    """Returns 1 for the places in `[start, start + length)`, else 0."""
    first, end = start[..., None], (start + length)[..., None]
    return ops.cast((places >= first) & (places < end), "float32")
