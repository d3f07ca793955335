"""Neighbors of images among themselves."""

import tracemalloc

import numpy as np
import pytest

from kerassl.evaluation import neighborhood_agreement
from kerassl.evaluation.neighborhoods import (
    classified,
    nearest_others,
    shared,
)


def slowly(features, k):
    """The k nearest others of each image, by cosine similarity."""
    found = []
    lengths = np.linalg.norm(features, axis=1)
    for i, x in enumerate(features):
        near = features @ x / lengths / lengths[i]
        near[i] = -np.inf
        found.append(set(np.argsort(near)[-k:]))
    return found


def test_it_is_the_loop():
    rng = np.random.default_rng(0)
    one = rng.normal(size=(600, 5))
    other = one[:, :4] + 0.3 * rng.normal(size=(600, 4))
    sets = [slowly(x, 7) for x in (one, other)]
    for x, expected in zip((one, other), sets):
        assert [set(row) for row in nearest_others(x, 7)] == expected
    both = np.mean([len(a & b) / 7 for a, b in zip(*sets)])
    assert neighborhood_agreement(one, other, 7) == pytest.approx(both)
    assert 0.1 < both < 0.9
    # Rotations and lengths change no neighborhood.
    turn, _ = np.linalg.qr(rng.normal(size=(5, 5)))
    assert neighborhood_agreement(one, 3 * one @ turn, 7) > 0.999
    labels = rng.integers(0, 3, 600)
    right = classified(nearest_others(one, 7), labels)
    for near, label, is_right in zip(sets[0], labels, right):
        votes = np.bincount(labels[list(near)], minlength=3)
        assert is_right == (votes.argmax() == label)


def test_it_needs_little_memory():
    """Not a byte for each pair of images, which would be 16 MB."""
    near = (np.arange(4000)[:, None] + np.arange(1, 11)) % 4000
    tracemalloc.start()
    assert shared(near, near + np.arange(10) // 5 * 4000) == 0.5
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4e6


def test_mistakes():
    x = np.ones((5, 2))
    with pytest.raises(ValueError, match="between 1 and 4, for 5 images"):
        neighborhood_agreement(x, x, 5)
    with pytest.raises(ValueError, match="5 and 4 images"):
        neighborhood_agreement(x, x[:4], 2)
