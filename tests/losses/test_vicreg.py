"""VICReg against the loops of the paper's Algorithm 1."""

import math

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from kerassl.losses import vicreg
from tests.backends import compiled, examples


def terms_of_one(z):
    count, dim = z.shape
    means = [sum(z[:, d]) / count for d in range(dim)]
    covariance = np.zeros((dim, dim))
    for i in range(dim):
        for j in range(dim):
            for n in range(count):
                covariance[i, j] += (
                    (z[n, i] - means[i]) * (z[n, j] - means[j]) / (count - 1)
                )
    shortfall, off_diagonal = 0.0, 0.0
    for i in range(dim):
        shortfall += max(0, 1 - math.sqrt(covariance[i, i] + 1e-4)) / dim
        for j in range(dim):
            if i != j:
                off_diagonal += covariance[i, j] ** 2 / dim
    return shortfall, off_diagonal


def by_loops(z1, z2, weights):
    invariance = 0.0
    for a, b in zip(z1.ravel(), z2.ravel()):
        invariance += (a - b) ** 2 / z1.size
    (v1, c1), (v2, c2) = terms_of_one(z1), terms_of_one(z2)
    # The authors' code halves the sum of both variances.
    terms = invariance, (v1 + v2) / 2, c1 + c2
    return (sum(w * term for w, term in zip(weights, terms)), *terms)


@settings(max_examples=examples(8))
@given(
    count=st.integers(2, 9),
    dim=st.integers(1, 8),
    scale=st.sampled_from([0.1, 0.8, 3.0]),
    weights=st.sampled_from([(25.0, 25.0, 1.0), (0.0, 1.0, 7.0)]),
    seed=st.integers(0, 1000),
)
def test_it_is_the_papers(count, dim, scale, weights, seed):
    rng = np.random.default_rng(seed)
    z1 = rng.normal(1.0, scale, size=(count, dim)).astype("float32")
    z2 = (z1 + 0.3 * rng.normal(size=z1.shape)).astype("float32")
    found = compiled(lambda *z: vicreg(*z, *weights))(
        ops.convert_to_tensor(z1), ops.convert_to_tensor(z2)
    )
    expected = by_loops(z1.astype(float), z2.astype(float), weights)
    # JAX sorts the keys of what is compiled.
    names = ("loss", "invariance", "variance", "covariance")
    assert [float(found[name]) for name in names] == pytest.approx(
        expected, rel=1e-3, abs=1e-4 * max(1, scale**4)
    )


def test_the_default_weights_are_the_papers():
    z1, z2 = np.random.default_rng(0).normal(size=(2, 6, 4)).astype("float32")
    loss, *terms = (float(v) for v in vicreg(z1, z2).values())
    assert loss == pytest.approx(25 * terms[0] + 25 * terms[1] + terms[2])


@pytest.mark.parametrize("shape", [(16, 4), (4, 16)])
def test_collapse(shape):
    z = np.full(shape, 5.0, "float32")
    loss, *terms = (float(v) for v in vicreg(z, z).values())
    assert terms == pytest.approx([0, 0.99, 0], abs=1e-5)
    assert loss == pytest.approx(25 * 0.99, rel=1e-5)


def test_whitened_inputs_cost_nothing():
    z = np.random.default_rng(0).normal(size=(64, 16))
    z, _ = np.linalg.qr(z - z.mean(0))
    z = (math.sqrt(63) * z).astype("float32")
    assert [float(v) for v in vicreg(z, z).values()] == pytest.approx(
        [0, 0, 0, 0], abs=1e-4
    )


@pytest.mark.parametrize("shape", [(4, 12), (12, 4)])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_stays_finite(dtype, shape):
    z = 3e4 * np.random.default_rng(0).uniform(-1, 1, shape)
    z = ops.cast(ops.convert_to_tensor(z.astype("float32")), dtype)
    for other in (z, -z):
        for value in vicreg(z, other).values():
            assert keras.backend.standardize_dtype(value.dtype) == "float32"
            assert math.isfinite(float(value))
