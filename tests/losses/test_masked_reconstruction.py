"""MAE's loss against loops over patches and pixels."""

import math

import keras
import numpy as np
import pytest
from keras import ops

from kerassl.losses import (
    masked_reconstruction,
    normalize_patches,
    visible_color,
)


def arrays(count=3, length=6, width=12, hidden=4, seed=0):
    rng = np.random.default_rng(seed)
    predictions, patches = rng.normal(
        2.0, 3.0, (2, count, length, width)
    ).astype("float32")
    mask = np.zeros((count, length), "float32")
    for row in mask:
        row[rng.permutation(length)[:hidden]] = 1
    return predictions, patches, mask


def test_it_is_the_papers():
    predictions, patches, mask = arrays()
    targets, means, stds = normalize_patches(ops.convert_to_tensor(patches))
    errors = []
    for n, rows in enumerate(patches.astype("float64")):
        for i, patch in enumerate(rows):
            mean = sum(patch) / len(patch)
            # Unbiased, like PyTorch's `var`.
            variance = sum((v - mean) ** 2 for v in patch) / (len(patch) - 1)
            std = math.sqrt(variance + 1e-6)
            assert float(means[n, i, 0]) == pytest.approx(mean, rel=1e-4)
            assert float(stds[n, i, 0]) == pytest.approx(std, rel=1e-4)
            if mask[n, i]:
                squares = [
                    (p - (v - mean) / std) ** 2
                    for p, v in zip(predictions[n, i], patch)
                ]
                errors.append(sum(squares) / len(squares))
    loss = masked_reconstruction(
        ops.convert_to_tensor(predictions), targets, mask
    )["loss"]
    assert len(errors) == mask.sum()
    assert float(loss) == pytest.approx(np.mean(errors), rel=1e-5)


def test_simmims_is_the_absolute_error():
    predictions, patches, mask = arrays()
    errors = [
        abs(float(p) - float(v))
        for n, i in zip(*np.nonzero(mask))
        for p, v in zip(predictions[n, i], patches[n, i])
    ]
    loss = masked_reconstruction(predictions, patches, mask, absolute=True)
    assert float(loss["loss"]) == pytest.approx(np.mean(errors), rel=1e-5)


def test_no_hidden_patch_costs_nothing():
    """As on a device whose images are whole."""
    predictions, patches, mask = arrays(hidden=0)
    assert float(masked_reconstruction(predictions, patches, mask)["loss"]) == 0


@pytest.mark.parametrize("absolute", [False, True])
def test_visible_patches_cost_nothing(absolute):
    predictions, patches, mask = arrays()
    changed = np.where(mask[..., None] == 1, predictions, 1e6)
    losses = [
        float(masked_reconstruction(p, patches, mask, absolute)["loss"])
        for p in (predictions, changed.astype("float32"))
    ]
    assert losses[0] == losses[1] > 0
    painted = np.where(mask[..., None] == 1, patches, predictions)
    assert float(masked_reconstruction(painted, patches, mask)["loss"]) == 0


def test_a_flat_patch_stays_finite():
    flat = np.full((1, 2, 12), 7.0, "float32")
    targets, mean, std = normalize_patches(ops.convert_to_tensor(flat))
    np.testing.assert_array_equal(ops.convert_to_numpy(targets), 0)
    np.testing.assert_array_equal(ops.convert_to_numpy(mean), 7)
    np.testing.assert_allclose(ops.convert_to_numpy(std), 1e-3, rtol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_visible_color(channels):
    _, patches, mask = arrays()
    found = ops.convert_to_numpy(visible_color(patches, mask, channels))
    assert found.shape == (3, 1, 12)
    for n in range(3):
        seen = patches[n][mask[n] == 0].reshape(-1, channels)
        expected = np.tile(seen.mean(axis=0), 12 // channels)
        np.testing.assert_allclose(found[n, 0], expected, rtol=1e-4)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_stays_finite(dtype):
    predictions, patches, mask = (
        ops.cast(ops.convert_to_tensor(a), dtype) for a in arrays()
    )
    for value in (
        masked_reconstruction(1e3 * predictions, patches, mask)["loss"],
        ops.mean(normalize_patches(1e3 * patches)[2]),
        ops.mean(visible_color(1e3 * patches, mask, 3)),
    ):
        assert keras.backend.standardize_dtype(value.dtype) == "float32"
        assert math.isfinite(float(value))
