"""NT-Xent against the loops of the paper's Algorithm 1."""

import math

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from kerassl.losses import nt_xent
from tests.backends import compiled, examples


def by_loops(z1, z2, temperature, decoupled=False, labels=None):
    z = [v / np.linalg.norm(v) for v in np.concatenate([z1, z2])]
    total, count = 0.0, len(z1)
    picked = 0
    for i in range(2 * count):
        partner = (i + count) % (2 * count)
        similarity = [
            float(z[i] @ z[k]) / temperature for k in range(2 * count)
        ]
        others = [k for k in range(2 * count) if k != i]
        denominator = sum(
            math.exp(similarity[k])
            for k in others
            if k != partner or not decoupled
        )
        partners = [partner]
        if labels is not None:
            own = labels[i % count]
            partners = [k for k in others if labels[k % count] == own]
        total -= sum(
            math.log(math.exp(similarity[k]) / denominator) for k in partners
        ) / len(partners)
        picked += max(others, key=lambda k: similarity[k]) in partners
    return total / (2 * count), picked / (2 * count)


@settings(max_examples=examples(12))
@given(
    count=st.integers(2, 9),
    dim=st.integers(2, 8),
    temperature=st.sampled_from([0.07, 0.2, 1.0]),
    kind=st.sampled_from(["plain", "decoupled", "supervised"]),
    seed=st.integers(0, 1000),
)
def test_it_is_the_papers(count, dim, temperature, kind, seed):
    rng = np.random.default_rng(seed)
    z1 = rng.normal(size=(count, dim)).astype("float32")
    z2 = (z1 + rng.normal(size=z1.shape)).astype("float32")
    decoupled = kind == "decoupled"
    labels = rng.integers(0, 3, count) if kind == "supervised" else None
    found = compiled(
        lambda *z: nt_xent(*z, temperature, decoupled=decoupled, labels=labels)
    )(ops.convert_to_tensor(z1), ops.convert_to_tensor(z2))
    expected, picked = by_loops(
        z1.astype(float), z2.astype(float), temperature, decoupled, labels
    )
    assert float(found["loss"]) == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert float(found["contrastive_accuracy"]) == pytest.approx(picked)


@pytest.mark.parametrize("labels", [None, np.array([0, 1, 1, 0, 2, 0])])
def test_parts_of_the_rows_make_the_whole(labels):
    rng = np.random.default_rng(0)
    z1, z2 = rng.normal(size=(2, 6, 4)).astype("float32")
    whole = nt_xent(z1, z2, 0.5, labels=labels)
    parts = [
        nt_xent(z1, z2, 0.5, np.arange(6)[part], labels=labels)
        for part in (slice(0, 3), slice(3, 6))
    ]
    for name in ("loss", "contrastive_accuracy"):
        mean = np.mean([float(part[name]) for part in parts])
        assert mean == pytest.approx(float(whole[name]), rel=1e-5)
    losses = [float(part["loss"]) for part in parts]
    assert losses[0] != pytest.approx(losses[1], rel=1e-2)


def test_scale_and_order_of_views_are_nothing():
    rng = np.random.default_rng(0)
    z1, z2 = rng.normal(size=(2, 6, 4)).astype("float32")
    loss = nt_xent(z1, z2, 0.5)["loss"]
    assert float(nt_xent(5 * z2, z1, 0.5)["loss"]) == pytest.approx(
        float(loss), rel=1e-5
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_stays_finite(dtype):
    z = ops.cast(ops.eye(8), dtype)
    loss, accuracy = nt_xent(z, z, 0.01).values()
    assert keras.backend.standardize_dtype(loss.dtype) == "float32"
    assert math.isfinite(float(loss)) and float(loss) < 1e-3
    assert float(accuracy) == 1.0


def test_chance_level():
    rng = np.random.default_rng(0)
    z1, z2 = rng.normal(size=(2, 64, 2048)).astype("float32")
    loss = nt_xent(z1, z2, 1.0)["loss"]
    assert float(loss) == pytest.approx(math.log(127), abs=0.02)


@pytest.mark.parametrize("decoupled", [False, True])
def test_one_image_has_no_negatives(decoupled):
    z = np.array([[1.0, 2.0, 3.0]], "float32")
    loss = nt_xent(z, z + 0.1, decoupled=decoupled)["loss"]
    assert float(loss) == pytest.approx(0, abs=1e-5)
