"""The cross-entropy with known targets, against loops."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from kerassl.losses import classification
from tests.backends import compiled, examples


def by_loops(logits, targets):
    total, hits = 0.0, 0
    for row, target in zip(logits, targets):
        right = int(np.argmax(target))
        partition = sum(math.exp(float(v) - float(max(row))) for v in row)
        total -= float(row[right]) - float(max(row)) - math.log(partition)
        hits += int(np.argmax(row)) == right
    return total / len(logits), hits / len(logits)


@settings(max_examples=examples(25))
@given(
    count=st.integers(1, 12),
    kinds=st.integers(2, 9),
    scale=st.sampled_from([0.1, 1.0, 30.0]),
    seed=st.integers(0, 999),
)
def test_it_is_the_mean_cross_entropy(count, kinds, scale, seed):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(count, kinds)).astype("float32") * scale
    targets = np.eye(kinds, dtype="float32")[rng.integers(0, kinds, count)]
    found = compiled(classification)(
        ops.convert_to_tensor(logits), ops.convert_to_tensor(targets)
    )
    expected = by_loops(logits, targets)
    assert float(found["loss"]) == pytest.approx(
        expected[0], rel=1e-5, abs=1e-6
    )
    assert float(found["accuracy"]) == pytest.approx(expected[1])


def test_targets_broadcast():
    logits = np.random.default_rng(0).normal(size=(3, 5, 4)).astype("float32")
    targets = np.eye(4, dtype="float32")[[0, 1, 2, 3, 0]]
    found = classification(ops.convert_to_tensor(logits), targets)
    loss, hits = by_loops(logits.reshape(-1, 4), np.tile(targets, (3, 1)))
    assert float(found["loss"]) == pytest.approx(loss, rel=1e-5)
    assert float(found["accuracy"]) == pytest.approx(hits)


def test_by_chance_and_in_half_precision():
    targets = np.eye(4, dtype="float32")
    loss = classification(ops.zeros((4, 4)), targets)["loss"]
    assert float(loss) == pytest.approx(math.log(4))
    large = ops.cast(ops.convert_to_tensor(targets * 6e4), "float16")
    found = classification(large, targets)
    assert float(found["loss"]) == 0.0
    assert float(found["accuracy"]) == 1.0
