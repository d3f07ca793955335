"""LeJEPA's loss against loops of the paper's formulas."""

import math

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from kerassl.losses import distance_to_center, lejepa, sigreg, unit_vectors
from tests.backends import compiled, examples, gradient_of


def statistic(sample, direction):
    """Epps and Pulley's, of one sample along one direction."""
    points = [3 * i / 16 for i in range(17)]
    total = 0.0
    for i, t in enumerate(points):
        cosine = sum(math.cos(t * row @ direction) for row in sample)
        sine = sum(math.sin(t * row @ direction) for row in sample)
        real = cosine / len(sample) - math.exp(-(t**2) / 2)
        imaginary = sine / len(sample)
        # The trapezoid rule on [-3, 3], by symmetry.
        width = (3 / 16) * (1 if i in (0, 16) else 2)
        total += width * math.exp(-(t**2) / 2) * (real**2 + imaginary**2)
    return len(sample) * total


def by_loops(z, directions):
    values = [
        statistic(z[:, view], direction)
        for view in range(z.shape[1])
        for direction in directions
    ]
    return np.mean(values)


def arrays(count, views, dim, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    z = scale * rng.normal(0.3, 1.0, (count, views, dim))
    directions = rng.normal(size=(5, dim))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return z.astype("float32"), directions.astype("float32")


@settings(max_examples=examples(8))
@given(
    count=st.integers(1, 9),
    views=st.integers(2, 4),
    centers=st.integers(1, 2),
    scale=st.sampled_from([0.0, 0.5, 3.0]),
    weight=st.sampled_from([0.02, 0.5]),
    seed=st.integers(0, 1000),
)
def test_it_is_the_papers(count, views, centers, scale, weight, seed):
    z, directions = arrays(count, views, 3, seed, scale)
    found = compiled(lambda *x: lejepa(*x, centers, weight))(
        *map(ops.convert_to_tensor, (z, directions))
    )
    distances = [
        (z[n, v, d] - z[n, :centers, d].mean()) ** 2
        for n in range(count)
        for v in range(views)
        for d in range(3)
    ]
    invariance = np.mean(distances)
    expected = by_loops(z.astype("float64"), directions)
    assert float(found["invariance"]) == pytest.approx(invariance, rel=1e-4)
    assert float(found["sigreg"]) == pytest.approx(expected, rel=1e-4)
    assert float(found["loss"]) == pytest.approx(
        (1 - weight) * invariance + weight * expected, rel=1e-4
    )


def test_the_gradient_is_the_statistics_slope():
    z, directions = arrays(6, 2, 3)

    def loss(x):
        return sigreg(x, ops.convert_to_tensor(directions))

    found = gradient_of(loss, z)
    expected = np.zeros(z.shape)
    for index in np.ndindex(z.shape):
        ends = []
        for step in (1e-5, -1e-5):
            shifted = z.astype("float64")
            shifted[index] += step
            ends.append(by_loops(shifted, directions))
        expected[index] = (ends[0] - ends[1]) / 2e-5
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_of_other_devices_only_the_samples_count():
    z, directions = arrays(6, 2, 3)
    found = lejepa(z[:2], directions, 2, gathered=z)
    whole = float(sigreg(z, directions))
    assert float(found["sigreg"]) == pytest.approx(whole, rel=1e-6)
    part = float(distance_to_center(z[:2], 2))
    assert float(found["invariance"]) == pytest.approx(part, rel=1e-6)


def test_normal_samples_score_low_whatever_their_number():
    rng = np.random.default_rng(0)
    directions = unit_vectors(rng.normal(size=(64, 8)).astype("float32"))
    scores = {}
    for count in (64, 512):
        normal = rng.normal(size=(count, 2, 8)).astype("float32")
        scores[count] = [
            float(sigreg(x, directions))
            for x in (normal, 0.5 * normal, normal + 0.5, np.abs(normal))
        ]
    for low, *others in scores.values():
        assert 0.2 < low < 2 < min(others)
    # What isn't normal is surer to be found in more samples.
    assert min(b / a for a, b in zip(scores[64][1:], scores[512][1:])) > 4


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_stays_finite(dtype):
    z, directions = arrays(8, 2, 3, scale=1e4)
    z = ops.cast(ops.convert_to_tensor(z), dtype)
    for value in lejepa(z, directions, 2).values():
        assert keras.backend.standardize_dtype(value.dtype) == "float32"
        assert math.isfinite(float(value))
