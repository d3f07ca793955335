"""A ViT's positions for images of another size."""

from collections.abc import Callable

import numpy as np

# The values of `training["method"]` in a converted DINO and iBOT, whose ViTs
# have their own rule for positions at other sizes.
DINO, IBOT = "DINO", "iBOT"

Matrix = Callable[[int, int], np.ndarray]


def resized_positions(
    positions: np.ndarray,
    old: tuple[int, int],
    new: tuple[int, int],
    matrix: Matrix,
) -> np.ndarray:
    """Interpolates position embeddings to another grid of patches.

    Args:
        positions: array `(tokens, units)`. Tokens before the grid's, such as
            the class token, are kept.
        old: `(rows, columns)` of the grid.
        new: likewise, of the new grid.
        matrix: function of an axis' old and new number of patches, such as
            `bicubic`.

    Returns:
        A float32 array `(new tokens, units)`.
    """
    first = len(positions) - old[0] * old[1]
    grid = positions[first:].reshape(*old, -1)
    for axis in (0, 1):
        product = np.tensordot(matrix(old[axis], new[axis]), grid, (1, axis))
        grid = np.moveaxis(product, 0, axis)
    flat = grid.reshape(-1, positions.shape[-1])
    return np.concatenate([positions[:first], flat]).astype("float32")


def bicubic(old: int, new: int) -> np.ndarray:
    """Returns the matrix `(new, old)` of bicubic interpolation.

    Positions are the centers of squares. The kernel is Keys's with a = -0.5,
    widened when the grid shrinks (antialiasing), as in timm.
    """
    centers = (np.arange(new) + 0.5) * old / new - 0.5
    x = np.abs(centers[:, None] - np.arange(old)) / max(1, old / new)
    matrix = _keys(x, -0.5)
    return matrix / matrix.sum(axis=1, keepdims=True)


def dino_bicubic(old: int, new: int) -> np.ndarray:
    """Returns the matrix `(new, old)` of DINO's own interpolation.

    Follows `interpolate_pos_encoding` in the authors' `vision_transformer.py`:
    the new grid counts as 0.1 patches larger, and PyTorch's kernel, with
    a = -0.75, repeats the border and isn't widened when the grid shrinks.
    """
    centers = (np.arange(new) + 0.5) * old / (new + 0.1) - 0.5
    first = np.floor(centers).astype(int) - 1
    matrix = np.zeros((new, old))
    for tap in range(4):
        weights = _keys(np.abs(centers - first - tap), -0.75)
        columns = np.clip(first + tap, 0, old - 1)
        np.add.at(matrix, (np.arange(new), columns), weights)
    return matrix


def _keys(x: np.ndarray, a: float) -> np.ndarray:
    """Returns Keys's cubic kernel at distances `x`."""
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0))
