"""Measures of features, against loops."""

import math

import numpy as np
import pytest

from kerassl import evaluation
from kerassl.evaluation import representation


def features(count=7, dim=5, seed=0):
    return np.random.default_rng(seed).normal(size=(count, dim))


def unit(vector):
    return vector / np.linalg.norm(vector)


def test_alignment_by_hand():
    x, y = features(), features(seed=1)
    squares = [np.sum((unit(a) - unit(b)) ** 2) for a, b in zip(x, y)]
    assert evaluation.alignment(x, y) == pytest.approx(np.mean(squares))
    assert evaluation.alignment(x, 3 * x) == pytest.approx(0)
    assert evaluation.alignment(x, -x) == pytest.approx(4)


@pytest.mark.parametrize("block", [3, 512])
def test_uniformity_by_hand(monkeypatch, block):
    monkeypatch.setattr(representation, "BLOCK", block)
    x = features()
    terms = [
        math.exp(-2 * np.sum((unit(x[i]) - unit(x[j])) ** 2))
        for i in range(7)
        for j in range(7)
        if i != j
    ]
    expected = math.log(np.mean(terms))
    assert evaluation.uniformity(x) == pytest.approx(expected)
    assert evaluation.uniformity(np.ones((5, 3))) == pytest.approx(0)


def test_zeros_are_not_evenly_spread():
    assert evaluation.uniformity(np.zeros((10, 4))) == 0


def test_rank_and_spread_by_hand():
    x = features(40, 6)
    values = np.sqrt(np.linalg.eigvalsh(x.T @ x))
    shares = values / values.sum()
    expected = math.exp(-sum(p * math.log(p) for p in shares))
    assert evaluation.effective_rank(x) == pytest.approx(expected)
    assert evaluation.effective_rank(np.eye(4)) == pytest.approx(4)
    assert evaluation.effective_rank(np.ones((4, 4))) == pytest.approx(1)
    deviations = np.std([unit(row) for row in x], axis=0)
    assert evaluation.feature_spread(x) == pytest.approx(
        np.mean(deviations) * 6**0.5
    )
    assert evaluation.feature_spread(np.ones((4, 4))) == pytest.approx(0)


def test_bad_features_are_refused():
    x = features()
    for measure in (
        evaluation.effective_rank,
        evaluation.feature_spread,
        evaluation.uniformity,
    ):
        with pytest.raises(ValueError, match=r"\(N, D\). Received: \(7,\)"):
            measure(x[:, 0])
        with pytest.raises(ValueError, match="NaN or infinite"):
            measure(np.where(x > 1, np.nan, x))
    with pytest.raises(ValueError, match="the same shape"):
        evaluation.alignment(x, x[:3])
    with pytest.raises(ValueError, match="at least two"):
        evaluation.uniformity(x[:1])
