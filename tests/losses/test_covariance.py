"""The squared norm of a product, computed both ways, against the matrix."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from kerassl.losses.covariance import squared_norm_of_product
from tests.backends import examples


def by_loops(a, b):
    total = 0.0
    for i in range(a.shape[1]):
        for j in range(b.shape[1]):
            total += (
                sum(float(x) * float(y) for x, y in zip(a[:, i], b[:, j])) ** 2
            )
    return total


def draw(count, dim, seed):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(2, count, dim)).astype("float32")


@settings(max_examples=examples(8))
@given(
    count=st.integers(1, 9),
    dim=st.integers(1, 9),
    seed=st.integers(0, 1000),
)
def test_it_is_that_of_the_matrix(count, dim, seed):
    a, b = draw(count, dim, seed)
    for left, right in ((a, b), (a, a)):
        tensors = {id(v): ops.convert_to_tensor(v) for v in (left, right)}
        found = squared_norm_of_product(tensors[id(left)], tensors[id(right)])
        assert float(found) == pytest.approx(by_loops(left, right), rel=1e-4)


@pytest.mark.parametrize("count,dim", [(3, 7), (7, 3), (5, 5)])
def test_an_unknown_batch_is_the_same(count, dim):
    a, b = draw(count, dim, 0)
    inputs = [keras.Input((dim,)), keras.Input((dim,))]
    model = keras.Model(inputs, squared_norm_of_product(*inputs))
    found = model([ops.convert_to_tensor(a), ops.convert_to_tensor(b)])
    assert float(found) == pytest.approx(by_loops(a, b), rel=1e-4)


def test_no_matrix_of_a_wide_projector_is_made():
    # The matrix would have 2 TB.
    a = ops.ones((2, 1 << 19))
    assert float(squared_norm_of_product(a, a)) == pytest.approx(4 * 2.0**38)
