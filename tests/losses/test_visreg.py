"""VISReg's loss against loops of the paper's formulas."""

import math
from statistics import NormalDist

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from kerassl.losses import sliced_wasserstein, visreg
from tests.backends import compiled, examples, gradient_of
from tests.losses.test_lejepa import arrays


def by_loops(z, directions, centers):
    """The invariance, and the means over views of center, scale and shape."""
    count, views, dim = z.shape
    terms = np.zeros(4)
    terms[0] = np.mean(
        [
            (z[n, v, d] - z[n, :centers, d].mean()) ** 2
            for n in range(count)
            for v in range(views)
            for d in range(dim)
        ]
    )
    quantiles = [
        NormalDist().inv_cdf(i / (count + 1)) for i in range(1, count + 1)
    ]
    for v in range(views):
        mean, deviation = z[:, v].mean(0), z[:, v].std(0)
        terms[1] += np.mean(mean**2) / views
        terms[2] += np.mean((1 - deviation) ** 2) / views
        samples = (z[:, v] - mean) / (deviation + 1e-4)
        for direction in directions:
            ordered = sorted(row @ direction for row in samples)
            for x, quantile in zip(ordered, quantiles):
                terms[3] += (x - quantile) ** 2 / (
                    count * views * len(directions)
                )
    return terms


@settings(max_examples=examples(8))
@given(
    count=st.integers(2, 9),
    views=st.integers(2, 4),
    centers=st.integers(1, 2),
    scale=st.sampled_from([0.5, 3.0]),
    weight=st.sampled_from([0.02, 0.6]),
    seed=st.integers(0, 1000),
)
def test_it_is_the_papers(count, views, centers, scale, weight, seed):
    z, directions = arrays(count, views, 3, seed, scale)
    found = compiled(lambda *x: visreg(*x, centers, weight))(
        *map(ops.convert_to_tensor, (z, directions))
    )
    expected = by_loops(z.astype("float64"), directions, centers)
    names = ("invariance", "center", "scale", "shape")
    assert [float(found[n]) for n in names] == pytest.approx(expected, rel=1e-3)
    loss = (1 - weight) * expected[0] + weight * sum(expected[1:])
    assert float(found["loss"]) == pytest.approx(loss, rel=1e-3)


def test_the_shape_leaves_the_scale_alone():
    """The gradient of the shape is along no dimension's own scale."""
    z, directions = arrays(16, 2, 3)

    def shape(x):
        return visreg(x, ops.convert_to_tensor(directions), 2)["shape"]

    def shape_of_free_scale(x):
        x = x - ops.mean(x, axis=0)
        deviation = ops.std(x, axis=0) + 1e-4
        return sliced_wasserstein(x / deviation, directions)

    found, other = (gradient_of(f, z) for f in (shape, shape_of_free_scale))
    assert np.abs(found).max() > 1e-3
    assert np.abs(found - other).max() > 1e-3


def test_the_scale_pulls_at_a_collapse_where_sigreg_does_not():
    z, directions = arrays(16, 2, 3, scale=1e-3)
    z -= z.mean(axis=0)

    def scale(x):
        return visreg(x, ops.convert_to_tensor(directions), 2)["scale"]

    gradient = gradient_of(scale, z)
    # Outward, by about 1 / (N V D) times the unit deviation.
    assert np.sum(-gradient * z) > 0
    assert np.linalg.norm(gradient) > 0.05


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_stays_finite(dtype):
    for scale in (0.0, 1e4):
        z, directions = arrays(8, 2, 3, scale=scale)
        z = ops.cast(ops.convert_to_tensor(z), dtype)
        for value in visreg(z, directions, 2).values():
            assert keras.backend.standardize_dtype(value.dtype) == "float32"
            assert math.isfinite(float(value))
