"""I-JEPA's loss against loops written from the paper's words."""

import math

import numpy as np
import pytest
from keras import ops

from kerassl.losses import feature_prediction
from tests.backends import gradient_of


def by_loops(predictions, targets):
    total, count = 0.0, 0
    for row, target in zip(predictions, targets):
        mean = sum(target) / len(target)
        variance = sum((t - mean) ** 2 for t in target) / len(target)
        for p, t in zip(row, target):
            error = abs(p - (t - mean) / math.sqrt(variance + 1e-5))
            total += error**2 / 2 if error < 1 else error - 0.5
            count += 1
    return total / count


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_against_loops(dtype):
    rng = np.random.default_rng(0)
    predictions, targets = (2 * rng.normal(size=(2, 12, 8))).astype(dtype)
    found = feature_prediction(
        *map(ops.convert_to_tensor, (predictions, targets))
    )["loss"]
    expected = by_loops(predictions.astype(float), targets.astype(float))
    assert float(found) == pytest.approx(expected, rel=1e-5)
    assert "float32" in str(found.dtype)


def test_the_gradient_is_at_most_1_and_none_reaches_the_targets():
    rng = np.random.default_rng(0)
    predictions, targets = (3 * rng.normal(size=(2, 5, 4))).astype("float32")

    def loss(x, y):
        return 20.0 * feature_prediction(x, y)["loss"]

    gradient = gradient_of(
        lambda x: loss(x, ops.convert_to_tensor(targets)), predictions
    )
    assert np.abs(gradient).max() == pytest.approx(1, rel=1e-5)
    assert (
        np.abs(
            gradient_of(
                lambda y: loss(ops.convert_to_tensor(predictions), y), targets
            )
        ).max()
        == 0
    )
