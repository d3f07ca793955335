"""KoLeo against loops written from DINOv2's section 4."""

import math

import numpy as np
import pytest
from keras import ops

from kerassl.losses import koleo
from tests.backends import gradient_of


def by_loops(features):
    x = [row / np.linalg.norm(row) for row in features]
    total = 0.0
    for i, row in enumerate(x):
        others = (y for j, y in enumerate(x) if j != i)
        total -= math.log(min(np.linalg.norm(row - y) for y in others))
    return total / len(x)


def test_against_loops():
    features = np.random.default_rng(0).normal(size=(9, 5)).astype("float32")
    found = float(koleo(ops.convert_to_tensor(features))["loss"])
    assert found == pytest.approx(by_loops(features.astype(float)), rel=1e-5)
    parts = [
        float(
            koleo(ops.convert_to_tensor(features), np.arange(9)[part])["loss"]
        )
        for part in (slice(0, 3), slice(3, 9))
    ]
    assert found == pytest.approx((parts[0] + 2 * parts[1]) / 3, rel=1e-5)


def test_equal_features_have_a_finite_loss_and_gradient():
    same = np.ones((4, 8), "float32")
    loss = float(koleo(ops.convert_to_tensor(same))["loss"])
    expected = -math.log(1e-8 * (1 + math.sqrt(8)))
    assert loss == pytest.approx(expected, rel=1e-3)
    gradient = gradient_of(lambda x: koleo(x)["loss"], same)
    assert np.isfinite(gradient).all()


def test_one_image_has_no_neighbor():
    assert float(koleo(np.ones((1, 4), "float32"))["loss"]) == 0
