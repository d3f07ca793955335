"""Images as patches, and tokens of only some patches, as MAE needs them."""

from typing import Any

import numpy as np
from keras import ops


def patchify(images: Any, size: int) -> Any:
    """Splits square images into patches.

    Args:
        images: tensor `(N, S, S, C)`.
        size: int, the height and width of a patch, a divisor of S.

    Returns:
        A tensor `(N, L, size * size * C)`. Patches are in row-major order, and
        so are the pixels of a patch, with channels last.
    """
    grid, channels = images.shape[1] // size, images.shape[-1]
    x = ops.reshape(images, (-1, grid, size, grid, size, channels))
    x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
    return ops.reshape(x, (-1, grid * grid, size * size * channels))


def unpatchify(patches: np.ndarray, size: int, channels: int) -> np.ndarray:
    """Joins patches to images: the inverse of `patchify`, in NumPy.

    Args:
        patches: array `(N, L, size * size * channels)`, or `(N, L, channels)`
            for patches of one color.
        size: int, the height and width of a patch.
        channels: int.

    Returns:
        An array `(N, S, S, channels)`.
    """
    count, length, width = patches.shape
    grid, inner = round(length**0.5), size if width > channels else 1
    x = patches.reshape(count, grid, grid, inner, inner, channels)
    x = np.broadcast_to(x, (count, grid, grid, size, size, channels))
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(
        count, grid * size, grid * size, channels
    )


def sine_positions(grid: int, width: int) -> np.ndarray:
    """Returns fixed position embeddings of a class token and square patches.

    The first half of a row holds sines and cosines of the patch's column, the
    second half those of its row, at frequencies from 1 down to 1/10000.

    Args:
        grid: int, the number of patches in a row.
        width: int, a multiple of 4.

    Returns:
        A float32 array `(1 + grid * grid, width)`. Its first row, for the class
        token, is 0.

    Raises:
        ValueError: if the width is not a multiple of 4.
    """
    if width % 4:
        raise ValueError(
            "Sine positions need widths that are multiples of 4: of the ViT, "
            f"MAE's decoder and I-JEPA's predictor. Received: {width}"
        )
    quarter = width // 4
    frequencies = 10000.0 ** (-np.arange(quarter) / quarter)
    angles = np.outer(np.arange(grid), frequencies)
    line = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    table = np.concatenate(
        [np.tile(line, (grid, 1)), np.repeat(line, grid, axis=0)], axis=1
    )
    return np.concatenate([np.zeros((1, width)), table]).astype("float32")


def rank_patches(noise: Any) -> tuple[Any, Any]:
    """Orders patches by random numbers.

    Args:
        noise: float tensor `(N, L)`.

    Returns:
        Two int tensors `(N, L)`: the indices of patches by increasing number,
        and the rank of each patch in that order.
    """
    order = ops.argsort(noise, axis=1)
    return order, ops.argsort(order, axis=1)


def select_tokens(tokens: Any, indices: Any) -> Any:
    """Returns the class token and the tokens of some patches.

    Args:
        tokens: tensor `(N, 1 + L, D)`, the class token first.
        indices: int tensor `(N, K)`, of patches.

    Returns:
        A tensor `(N, 1 + K, D)`.
    """
    chosen = ops.take_along_axis(tokens[:, 1:], indices[..., None], axis=1)
    return ops.concatenate([tokens[:, :1], chosen], axis=1)


def restore_tokens(tokens: Any, mask_token: Any, rank: Any) -> Any:
    """Puts tokens back in the order of patches, with mask tokens in the gaps.

    Args:
        tokens: tensor `(N, 1 + K, D)`, the class token first.
        mask_token: tensor `(1, 1, D)`, for each patch without a token.
        rank: int tensor `(N, L)`: the index of each patch among the K tokens;
            from K on, it has none.

    Returns:
        A tensor `(N, 1 + L, D)`.
    """
    missing = rank.shape[1] - (tokens.shape[1] - 1)
    # Adding zeros repeats it for each image, however many there are.
    masks = ops.cast(mask_token, tokens.dtype) + ops.zeros_like(tokens[:, :1])
    masks = ops.tile(masks, (1, missing, 1))
    return select_tokens(ops.concatenate([tokens, masks], axis=1), rank)
