"""Inpainting's loss and metric against loops."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from kerassl.losses import inpainting, relative_error
from tests.backends import examples


def arrays(seed, shape=(3, 4, 5, 2)):
    rng = np.random.default_rng(seed)
    painted, target = rng.uniform(-1, 1, (2, *shape)).astype("float32")
    mask = (rng.uniform(size=(*shape[:-1], 1)) < 0.4).astype("float32")
    mask[0, 0, 0] = 1
    return painted, target, mask


@settings(max_examples=examples(8))
@given(seed=st.integers(0, 1000), scale=st.sampled_from([1.0, 10.0]))
def test_the_weighted_error(seed, scale):
    painted, target, mask = arrays(seed)
    weights = scale * mask + 0.5 * (1 - mask)
    total, weight = 0.0, 0.0
    for n, y, x, c in np.ndindex(*painted.shape):
        w = float(weights[n, y, x, 0])
        total += w * (float(painted[n, y, x, c]) - target[n, y, x, c]) ** 2
        weight += w
    found = inpainting(*map(ops.convert_to_tensor, (painted, target, weights)))[
        "loss"
    ]
    assert float(found) == pytest.approx(total / weight, rel=1e-5)


@settings(max_examples=examples(8))
@given(seed=st.integers(0, 1000))
def test_the_relative_error(seed):
    painted, target, mask = arrays(seed)
    colors = target.mean(axis=(1, 2), keepdims=True)
    ours, plain = 0.0, 0.0
    for n, y, x, c in np.ndindex(*painted.shape):
        if mask[n, y, x, 0]:
            ours += (painted[n, y, x, c] - target[n, y, x, c]) ** 2
            plain += (colors[n, 0, 0, c] - target[n, y, x, c]) ** 2
    given_arrays = (painted, target, mask, colors)
    found = relative_error(*map(ops.convert_to_tensor, given_arrays))
    assert float(found) == pytest.approx(ours / plain, rel=1e-4)
    everywhere = np.broadcast_to(colors, target.shape)
    assert float(
        relative_error(everywhere, target, mask, colors)
    ) == pytest.approx(1, rel=1e-5)
    assert float(relative_error(target, target, mask, colors)) == 0


def test_nothing_hidden_costs_nothing():
    painted, target, mask = arrays(0)
    assert float(inpainting(painted, target, 0 * mask)["loss"]) == 0
    assert float(relative_error(painted, target, 0 * mask, target[:, :1])) == 0


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_summed_in_float32(dtype):
    shape = (8, 64, 64, 3)
    halves = [
        ops.cast(ops.convert_to_tensor(x), dtype) for x in arrays(0, shape)
    ]
    found = inpainting(*halves)["loss"]
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    # The expectation for uniform numbers in [-1, 1]. Half precision can't count
    # that many pixels.
    assert float(found) == pytest.approx(2 / 3, rel=0.02)
    relative = relative_error(*halves, halves[1][:, :1, :1])
    assert keras.backend.standardize_dtype(relative.dtype) == "float32"
