"""Patches of images, their positions and their tokens."""

import numpy as np
from keras import ops

from kerassl.layers.patches import (
    patchify,
    rank_patches,
    restore_tokens,
    select_tokens,
    sine_positions,
    unpatchify,
)


def test_patches_are_rows_columns_channels():
    images = np.random.default_rng(0).normal(size=(2, 6, 6, 3))
    patches = ops.convert_to_numpy(patchify(images.astype("float32"), 2))
    assert patches.shape == (2, 9, 12)
    for i in range(9):
        row, column = 2 * (i // 3), 2 * (i % 3)
        expected = images[:, row : row + 2, column : column + 2].reshape(2, -1)
        np.testing.assert_allclose(patches[:, i], expected, rtol=1e-6)
    np.testing.assert_array_equal(
        unpatchify(patches, 2, 3), images.astype("float32")
    )


def test_sine_positions():
    width, grid = 16, 3
    table = sine_positions(grid, width)
    assert table.shape == (1 + grid * grid, width)
    np.testing.assert_array_equal(table[0], 0)
    for row in range(grid):
        for column in range(grid):
            expected = []
            for place in (column, row):
                angles = [place / 10000 ** (i / 4) for i in range(4)]
                expected += [np.sin(a) for a in angles]
                expected += [np.cos(a) for a in angles]
            np.testing.assert_allclose(
                table[1 + row * grid + column], expected, rtol=1e-6, atol=1e-7
            )


def test_tokens_are_selected_and_restored():
    rng = np.random.default_rng(0)
    tokens = rng.normal(size=(2, 6, 3)).astype("float32")
    noise = rng.uniform(size=(2, 5)).astype("float32")
    order, rank = rank_patches(noise)
    kept = select_tokens(ops.convert_to_tensor(tokens), order[:, :2])
    mask_token = np.full((1, 1, 3), 7.0, "float32")
    restored = ops.convert_to_numpy(restore_tokens(kept, mask_token, rank))
    kept = ops.convert_to_numpy(kept)
    assert kept.shape == (2, 3, 3) and restored.shape == (2, 6, 3)
    for n in range(2):
        visible = np.argsort(noise[n])[:2]
        np.testing.assert_array_equal(kept[n, 0], tokens[n, 0])
        np.testing.assert_array_equal(kept[n, 1:], tokens[n, 1 + visible])
        expected = np.full((6, 3), 7.0)
        expected[[0, *(1 + visible)]] = tokens[n, [0, *(1 + visible)]]
        np.testing.assert_array_equal(restored[n], expected)
