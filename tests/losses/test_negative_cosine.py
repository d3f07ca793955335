"""The negative cosine and `output_std` against loops."""

import math

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from kerassl.losses import negative_cosine, output_std
from tests.backends import compiled, examples


def draw(count, dim, seed):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(2, count, dim)).astype("float32")


def as_rows(z):
    return [[float(v) for v in row] for row in z]


def norm(row):
    return math.sqrt(sum(v * v for v in row))


def cosine_by_loops(p, z):
    total = 0.0
    for a, b in zip(as_rows(p), as_rows(z)):
        total += sum(x * y for x, y in zip(a, b)) / (norm(a) * norm(b))
    return -total / len(p)


def byol_by_loops(p, z):
    """BYOL's equation 2: squared distances of unit vectors."""
    total = 0.0
    for a, b in zip(as_rows(p), as_rows(z)):
        total += sum((x / norm(a) - y / norm(b)) ** 2 for x, y in zip(a, b))
    return total / len(p)


def std_by_loops(z):
    rows = [[v / norm(row) for v in row] for row in as_rows(z)]
    stds = []
    for column in zip(*rows):
        mean = sum(column) / len(column)
        variance = sum((v - mean) ** 2 for v in column) / len(column)
        stds.append(math.sqrt(variance))
    return sum(stds) / len(stds)


@settings(max_examples=examples(8))
@given(
    count=st.integers(1, 9),
    dim=st.integers(1, 8),
    seed=st.integers(0, 1000),
)
def test_they_are_the_papers(count, dim, seed):
    p, z = draw(count, dim, seed)
    loss = float(
        compiled(negative_cosine)(
            ops.convert_to_tensor(p), ops.convert_to_tensor(z)
        )["loss"]
    )
    assert loss == pytest.approx(cosine_by_loops(p, z), rel=1e-4, abs=1e-5)
    assert 2 + 2 * loss == pytest.approx(
        byol_by_loops(p, z), rel=1e-4, abs=1e-5
    )
    std = compiled(output_std)(ops.convert_to_tensor(z))
    assert float(std) == pytest.approx(std_by_loops(z), rel=1e-4, abs=1e-5)


def test_anchors():
    z, _ = draw(8, 4, 0)
    assert float(negative_cosine(z, 3 * z)["loss"]) == pytest.approx(
        -1, abs=1e-5
    )
    assert float(negative_cosine(z, -z)["loss"]) == pytest.approx(1, abs=1e-5)
    eye = np.eye(4, dtype="float32")
    assert float(negative_cosine(eye, eye[::-1])["loss"]) == pytest.approx(0)
    assert float(output_std(np.repeat(z[:1], 8, axis=0))) < 1e-6
    spread, _ = draw(2000, 64, 0)
    assert float(output_std(spread)) == pytest.approx(1 / 8, rel=0.02)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_stays_finite(dtype):
    # Their squares overflow and underflow float16.
    for scale in (1e4, 1e-4):
        z = ops.cast(scale * ops.eye(8), dtype)
        loss, std = negative_cosine(z, z)["loss"], output_std(z)
        for value in (loss, std):
            assert keras.backend.standardize_dtype(value.dtype) == "float32"
        assert float(loss) == pytest.approx(-1, abs=1e-4)
        assert float(std) == pytest.approx(math.sqrt(7) / 8, abs=1e-4)
    zeros = ops.zeros((4, 4), dtype=dtype)
    assert float(negative_cosine(zeros, zeros)["loss"]) == 0
    assert float(output_std(zeros)) == 0
