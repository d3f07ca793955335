"""EMP-SSL's loss against loops of the paper's formula."""

import math

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from kerassl.losses import coding_rate, emp_ssl
from tests.backends import compiled, examples


def by_loops(z, weight, epsilon):
    count, views, dim = z.shape
    z = z / np.linalg.norm(z, axis=2, keepdims=True)
    cosines, rates = [], []
    for v in range(views):
        for n in range(count):
            center = z[n].mean(0)
            cosines.append(z[n, v] @ center / np.linalg.norm(center))
        covariance = sum(np.outer(row, row) for row in z[:, v])
        matrix = np.eye(dim) + dim / (count * epsilon) * covariance
        rates.append(math.log(np.linalg.det(matrix)) / 2)
    similarity, rate = np.mean(cosines), np.mean(rates)
    return -weight * similarity - rate, similarity, rate


@settings(max_examples=examples(8))
@given(
    count=st.integers(1, 8),
    views=st.integers(2, 4),
    dim=st.integers(2, 6),
    epsilon=st.sampled_from([0.2, 1.0]),
    seed=st.integers(0, 1000),
)
def test_it_is_the_papers(count, views, dim, epsilon, seed):
    rng = np.random.default_rng(seed)
    z = rng.normal(0.5, 1.0, (count, views, dim)).astype("float32")
    found = compiled(lambda z: emp_ssl(z, 3.0, epsilon))(
        ops.convert_to_tensor(z)
    )
    expected = by_loops(z.astype("float64"), 3.0, epsilon)
    names = ("loss", "similarity", "coding_rate")
    assert [float(found[name]) for name in names] == pytest.approx(
        expected, rel=1e-4, abs=1e-5
    )


def test_both_sides_have_one_determinant():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(2, 7, 5)).astype("float32")
    # With columns of zeros the same samples are wide.
    wide = np.concatenate([z, np.zeros((2, 7, 5), "float32")], axis=2)
    # The scale is D / epsilon.
    ours = float(coding_rate(z, 0.2))
    assert float(coding_rate(wide, 0.4)) == pytest.approx(ours, rel=1e-5)


def test_of_other_devices_only_the_samples_count():
    z = np.random.default_rng(0).normal(size=(6, 2, 3)).astype("float32")
    part, whole = emp_ssl(z[:2], gathered=z), emp_ssl(z)
    assert float(part["coding_rate"]) == pytest.approx(
        float(whole["coding_rate"]), rel=1e-6
    )
    assert float(part["similarity"]) == pytest.approx(
        float(emp_ssl(z[:2])["similarity"]), rel=1e-6
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_stays_finite(dtype):
    for scale in (0.0, 3e4):
        z = scale * np.random.default_rng(0).uniform(-1, 1, (4, 2, 6))
        z = ops.cast(ops.convert_to_tensor(z.astype("float32")), dtype)
        for value in emp_ssl(z).values():
            assert keras.backend.standardize_dtype(value.dtype) == "float32"
            assert math.isfinite(float(value))
