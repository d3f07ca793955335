"""Barlow Twins against the loops of the paper's Algorithm 1."""

import math

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from kerassl.losses import barlow_twins, cross_correlation
from tests.backends import compiled, examples


def standardized(z):
    z = z.astype(float)
    for d in range(z.shape[1]):
        mean = sum(z[:, d]) / len(z)
        variance = sum((v - mean) ** 2 for v in z[:, d]) / len(z)
        # As in the authors' batch normalization.
        z[:, d] = (z[:, d] - mean) / math.sqrt(variance + 1e-5)
    return z


def by_loops(z1, z2, weight):
    a, b = standardized(z1), standardized(z2)
    count, dim = a.shape
    correlation = np.zeros((dim, dim))
    for i in range(dim):
        for j in range(dim):
            for n in range(count):
                correlation[i, j] += a[n, i] * b[n, j] / count
    loss, rest = 0.0, 0.0
    for i in range(dim):
        for j in range(dim):
            if i == j:
                loss += (correlation[i, i] - 1) ** 2
            else:
                loss += weight * correlation[i, j] ** 2
                rest += correlation[i, j] ** 2
    diagonal = sum(correlation[i, i] for i in range(dim)) / dim
    root = math.sqrt(rest / max(dim * (dim - 1), 1))
    return correlation, loss, diagonal, root


@settings(max_examples=examples(8))
@given(
    count=st.integers(2, 9),
    dim=st.integers(1, 8),
    weight=st.sampled_from([0.0, 0.0051, 1.0]),
    seed=st.integers(0, 1000),
)
def test_it_is_the_papers(count, dim, weight, seed):
    rng = np.random.default_rng(seed)
    z1 = rng.normal(2.0, 3.0, size=(count, dim)).astype("float32")
    z2 = (z1 + rng.normal(size=z1.shape)).astype("float32")
    correlation, *expected = by_loops(z1, z2, weight)
    z1, z2 = ops.convert_to_tensor(z1), ops.convert_to_tensor(z2)
    matrix = compiled(cross_correlation)(z1, z2)
    np.testing.assert_allclose(
        ops.convert_to_numpy(matrix), correlation, atol=1e-5
    )
    found = compiled(lambda *z: barlow_twins(*z, weight))(z1, z2)
    # JAX sorts the keys of what is compiled.
    loss, diagonal, root = (
        float(found[name]) for name in ("loss", "on_diagonal", "off_diagonal")
    )
    assert loss == pytest.approx(expected[0], rel=1e-3, abs=1e-4)
    assert diagonal == pytest.approx(expected[1], rel=1e-4, abs=1e-5)
    # Near 0 the root of a difference amplifies float32's rounding.
    assert root == pytest.approx(expected[2], rel=1e-3, abs=2e-3)


def whitened(count, dim):
    z = np.random.default_rng(0).normal(size=(count, dim))
    z, _ = np.linalg.qr(z - z.mean(0))
    return (math.sqrt(count) * z).astype("float32")


def test_identical_whitened_inputs_cost_nothing():
    z = whitened(64, 16)
    loss, diagonal, root = (float(v) for v in barlow_twins(z, z, 1.0).values())
    assert loss == pytest.approx(0, abs=1e-3)
    assert diagonal == pytest.approx(1, abs=1e-4)
    assert root == pytest.approx(0, abs=5e-3)


def test_independent_dimensions():
    z1, z2 = np.random.default_rng(0).normal(size=(2, 128, 512))
    loss, diagonal, root = (
        float(v) for v in barlow_twins(z1, z2, 0.0).values()
    )
    assert loss == pytest.approx(512, rel=0.03)
    assert diagonal == pytest.approx(0, abs=0.02)
    assert root == pytest.approx(1 / math.sqrt(128), rel=0.03)


@pytest.mark.parametrize("shape", [(4, 12), (12, 4)])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_stays_finite(dtype, shape):
    z = 3e4 * np.random.default_rng(0).uniform(-1, 1, shape)
    z = ops.cast(ops.convert_to_tensor(z.astype("float32")), dtype)
    for other in (z, -z):
        found = barlow_twins(z, other)
        for value in found.values():
            assert keras.backend.standardize_dtype(value.dtype) == "float32"
            assert math.isfinite(float(value))
        assert abs(float(found["on_diagonal"])) == pytest.approx(1, abs=1e-3)
    collapsed = ops.ones(shape, dtype=dtype)
    loss, diagonal, root = barlow_twins(collapsed, collapsed).values()
    assert float(loss) == pytest.approx(shape[1])
    assert float(diagonal) == float(root) == 0
