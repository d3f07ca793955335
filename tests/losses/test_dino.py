"""DINO's loss against loops written from the paper's algorithm 1."""

import math

import numpy as np
import pytest
from keras import ops

from kerassl.losses import centered, dino


def softmax_by_loops(rows):
    exps = [[math.exp(float(x)) for x in row] for row in rows]
    return [[e / sum(row) for e in row] for row in exps]


def by_loops(student, teacher, center, tau_s, tau_t):
    """Mean over the pairs of different views, and over images."""
    terms, entropies = [], []
    for i, t in enumerate(teacher):
        p = softmax_by_loops((t - center) / tau_t)
        for b in range(len(p)):
            entropies.append(-sum(x * math.log(x) for x in p[b]))
        for v, s in enumerate(student):
            if v == i:
                continue
            q = softmax_by_loops(s / tau_s)
            for b in range(len(p)):
                terms.append(-sum(x * math.log(y) for x, y in zip(p[b], q[b])))
    return np.mean(terms), np.mean(entropies)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_against_loops(dtype):
    rng = np.random.default_rng(0)
    student = [rng.normal(size=(3, 5)) * 0.2 for _ in range(4)]
    teacher = [rng.normal(size=(3, 5)) * 0.2 for _ in range(2)]
    center = rng.normal(size=5) * 0.1
    given = [
        [ops.convert_to_tensor(x.astype(dtype)) for x in views]
        for views in (student, teacher)
    ]
    exact = [
        [np.asarray(x, dtype).astype("float64") for x in views]
        for views in (student, teacher)
    ]
    center = center.astype("float32")
    probabilities = [
        centered(x, ops.convert_to_tensor(center), 0.07) for x in given[1]
    ]
    found = dino(given[0], probabilities, 0.1)
    loss, entropy = by_loops(*exact, center, 0.1, 0.07)
    assert float(found["loss"]) == pytest.approx(loss, rel=1e-5)
    assert float(found["teacher_entropy"]) == pytest.approx(entropy, rel=1e-5)
    assert float(found["teacher_kl"]) == pytest.approx(loss - entropy, rel=1e-4)


def test_the_ends_of_the_entropy():
    zeros = ops.zeros((4, 8))
    found = dino([zeros] * 2, [centered(zeros, zeros[0], 0.04)] * 2)
    assert float(found["teacher_entropy"]) == pytest.approx(math.log(8))
    assert float(found["loss"]) == pytest.approx(math.log(8))
    # One prototype for all: no NaN of 0 log 0.
    peaked = ops.convert_to_tensor(np.eye(8, dtype="float32")[:1] * 100)
    found = dino([peaked] * 2, [centered(peaked, zeros[0], 0.04)] * 2)
    assert float(found["teacher_entropy"]) == pytest.approx(0, abs=1e-6)
    assert float(found["loss"]) == pytest.approx(0, abs=1e-6)
