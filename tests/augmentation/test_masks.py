"""Masks as functions of uniform numbers, and the weights around their holes."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from kerassl.augmentation import masks
from tests.backends import compiled, examples

# Few sizes: each is a program of its own on JAX.
SIZES = st.sampled_from([8, 15, 32])


def make(kind, size, count=5, seed=0, overlap=1):
    uniforms = np.random.default_rng(seed).uniform(
        size=(count, masks.UNIFORMS[kind])
    )
    made = compiled(lambda u: masks.make_masks(kind, u, size, overlap))(
        ops.convert_to_tensor(uniforms.astype("float32"))
    )
    assert keras.backend.standardize_dtype(made.dtype) == "float32"
    made = ops.convert_to_numpy(made)
    assert made.shape == (count, size, size, 1)
    assert set(np.unique(made)) <= {0.0, 1.0}
    return made[..., 0]


@pytest.mark.parametrize("kind", ["blocks", "region"])
@settings(max_examples=examples(20))
@given(size=SIZES, seed=st.integers(0, 10_000))
def test_random_masks_hide_their_share_and_differ(kind, size, seed):
    made = make(kind, size, seed=seed)
    area = made.mean(axis=(1, 2))
    if kind == "region":
        # To the pixel.
        assert np.all(area >= 0.2 - 1 / size**2) and np.all(area <= 0.3)
    else:
        assert np.all(area > 1 / 40) and np.all(area <= 0.25)
    for i in range(len(made)):
        for j in range(i):
            assert np.any(made[i] != made[j])


def test_blocks_by_hand():
    size = 24
    made = make("blocks", size, count=6, seed=3)
    u = np.random.default_rng(3).uniform(size=(6, 16)).reshape(6, 4, 4)
    for i in range(6):
        expected = np.zeros((size, size))
        for b in range(4):
            height, width = (4 + int(u[i, k, b] * 3) for k in (0, 1))
            top = int(u[i, 2, b] * (size - height + 1))
            left = int(u[i, 3, b] * (size - width + 1))
            expected[top : top + height, left : left + width] = 1
        np.testing.assert_array_equal(made[i], expected)


@pytest.mark.parametrize("kind", ["blocks", "region"])
@pytest.mark.parametrize("value", [0.0, 1 - 2**-24])
def test_the_ends_of_the_uniform_numbers(kind, value):
    uniforms = np.full((2, masks.UNIFORMS[kind]), value, "float32")
    if kind == "region":
        noise = np.random.default_rng(0).uniform(size=(2, 64))
        uniforms[:, :-1] = noise
    made = masks.make_masks(kind, ops.convert_to_tensor(uniforms), 32, 1)
    made = ops.convert_to_numpy(made)[..., 0]
    if kind == "region":
        expected = 0.2 if value == 0 else 0.3
        assert made.mean() == pytest.approx(expected, abs=1 / 32**2)
    elif value == 0:
        assert made[:, :5, :5].all() and made.sum() == 2 * 25
    else:
        assert made[:, -8:, -8:].all() and made.sum() == 2 * 64


def test_regions_are_smooth():
    """An enlarged noise has few edges: some four of 32 pixels in a row."""
    made = make("region", 32, count=64)
    edges = np.abs(np.diff(made, axis=2)).sum(axis=2).mean()
    assert 1 < edges < 6
    scattered = np.random.default_rng(0).uniform(size=made.shape) < 0.25
    assert np.abs(np.diff(scattered.astype(int), axis=2)).sum(2).mean() > 9


@pytest.mark.parametrize("size, overlap", [(32, 1), (128, 4), (28, 2), (9, 1)])
def test_the_center(size, overlap):
    made = make("center", size, overlap=overlap)
    expected = np.zeros((size, size))
    start = (size - size // 2) // 2 + overlap
    stop = start + size // 2 - 2 * overlap
    expected[start:stop, start:stop] = 1
    for mask in made:
        np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize("overlap", [1, 3])
@pytest.mark.parametrize("kind", list(masks.UNIFORMS))
def test_the_weights_by_loops(kind, overlap):
    size = 20
    made = make(kind, size, count=3, overlap=overlap)
    found = ops.convert_to_numpy(
        masks.hole_weights(ops.convert_to_tensor(made[..., None]), overlap)
    )[..., 0]
    for mask, weights in zip(made, found):
        for y in range(size):
            for x in range(size):
                near = mask[
                    max(0, y - overlap) : y + overlap + 1,
                    max(0, x - overlap) : x + overlap + 1,
                ]
                expected = 1 if mask[y, x] else 10 if near.any() else 0
                assert weights[y, x] == expected
    if kind == "center":
        # Hole and band fill the central half.
        half = masks.central(size)
        assert np.all(found[:, half, half] > 0)
        assert np.all(found.sum((1, 2)) == found[:, half, half].sum((1, 2)))
