"""InfoNCE against the loops of MoCo's Algorithm 1."""

import math

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from kerassl.losses import info_nce
from tests.backends import compiled, examples


def unit(vector):
    return vector / np.linalg.norm(vector)


def by_loops(queries, keys, temperature, negatives=None):
    losses, picked = [], 0
    for i in range(len(queries)):
        positive = float(unit(queries[i]) @ unit(keys[i])) / temperature
        if negatives is None:
            others = [unit(keys[j]) for j in range(len(keys)) if j != i]
        else:
            others = list(negatives)
        wrong = [float(unit(queries[i]) @ k) / temperature for k in others]
        total = math.exp(positive) + sum(math.exp(s) for s in wrong)
        losses.append(-math.log(math.exp(positive) / total))
        picked += all(positive > s for s in wrong)
    return sum(losses) / len(losses), picked / len(losses)


def draw(count, dim, queue, seed):
    rng = np.random.default_rng(seed)
    queries = rng.normal(size=(count, dim))
    keys = 3 * queries + rng.normal(size=(count, dim))
    negatives = rng.normal(size=(queue, dim))
    negatives /= np.linalg.norm(negatives, axis=1, keepdims=True)
    return [v.astype("float32") for v in (queries, keys, negatives)]


@settings(max_examples=examples(12))
@given(
    count=st.integers(1, 9),
    dim=st.integers(2, 8),
    queue=st.integers(0, 12),
    temperature=st.sampled_from([0.07, 0.2, 1.0]),
    seed=st.integers(0, 1000),
)
def test_it_is_the_papers(count, dim, queue, temperature, seed):
    queries, keys, negatives = draw(count, dim, queue, seed)
    found = compiled(lambda q, k, *n: info_nce(q, k, temperature, *n))
    given_arrays = (queries, keys, negatives)[: 3 if queue else 2]
    scalars = found(*map(ops.convert_to_tensor, given_arrays))
    expected, picked = by_loops(
        queries.astype(float),
        keys.astype(float),
        temperature,
        negatives.astype(float) if queue else None,
    )
    assert float(scalars["loss"]) == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert float(scalars["contrastive_accuracy"]) == pytest.approx(picked)


def test_parts_of_the_queries_make_the_whole():
    rng = np.random.default_rng(0)
    q, k = rng.normal(size=(2, 6, 4)).astype("float32")
    whole = info_nce(q, k, 0.5)
    parts = [
        info_nce(q[part], k, 0.5, rows=ops.arange(6)[part])
        for part in (slice(0, 3), slice(3, 6))
    ]
    for name in ("loss", "contrastive_accuracy"):
        mean = np.mean([float(part[name]) for part in parts])
        assert mean == pytest.approx(float(whole[name]), rel=1e-5)
    losses = [float(part["loss"]) for part in parts]
    assert losses[0] != pytest.approx(losses[1], rel=1e-2)


def test_scale_is_nothing():
    queries, keys, negatives = draw(6, 4, 5, 0)
    for others in (negatives, None):
        loss = info_nce(queries, keys, 0.5, others)["loss"]
        scaled = info_nce(5 * queries, 0.2 * keys, 0.5, others)["loss"]
        assert float(scaled) == pytest.approx(float(loss), rel=1e-5)


def test_chance_level():
    rng = np.random.default_rng(0)
    q, k = rng.normal(size=(2, 64, 2048)).astype("float32")
    queue = rng.normal(size=(500, 2048)).astype("float32")
    queue /= np.linalg.norm(queue, axis=1, keepdims=True)
    loss = info_nce(q, k, 1.0, queue)["loss"]
    assert float(loss) == pytest.approx(math.log(501), abs=0.02)
    loss = info_nce(q, k, 1.0)["loss"]
    assert float(loss) == pytest.approx(math.log(64), abs=0.02)


@pytest.mark.parametrize("count,dim", [(64, 256), (256, 33), (200, 1000)])
def test_a_key_is_picked_whatever_rounding_does(count, dim):
    rng = np.random.default_rng(count)
    queries = rng.normal(size=(count, dim)).astype("float32")
    found = info_nce(
        ops.convert_to_tensor(queries), ops.convert_to_tensor(queries), 0.1
    )
    assert float(found["contrastive_accuracy"]) == 1.0


@pytest.mark.parametrize("with_negatives", [True, False])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_stays_finite(dtype, with_negatives):
    z = ops.cast(ops.eye(8), dtype)
    negatives = -z if with_negatives else None
    loss, accuracy = info_nce(z, z, 0.01, negatives).values()
    assert keras.backend.standardize_dtype(loss.dtype) == "float32"
    assert math.isfinite(float(loss)) and float(loss) < 1e-3
    assert float(accuracy) == 1.0
    # The worst case: far from the key, and on a negative.
    loss, accuracy = info_nce(
        z, -z, 0.01, z if with_negatives else None
    ).values()
    assert math.isfinite(float(loss)) and float(loss) > 99
    assert float(accuracy) == 0.0


class OneVariable(keras.Model):
    """A step of SGD with rate 1 subtracts the gradient from its variable."""

    def __init__(self, start, loss):
        super().__init__()
        self.value = self.add_weight(shape=start.shape, initializer="zeros")
        self.value.assign(start)
        self.loss_of = loss

    def call(self, x):
        return ops.convert_to_tensor(self.value) + 0 * ops.sum(x)

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        return self.loss_of(y_pred)


def gradient_of(loss, start):
    model = OneVariable(start, loss)
    model.compile(keras.optimizers.SGD(1.0))
    model.train_on_batch(np.zeros((1, 1), "float32"))
    return start - ops.convert_to_numpy(model.value)


@pytest.mark.parametrize("with_negatives", [True, False])
def test_the_gradient_is_that_of_the_loops(with_negatives):
    queries, keys, negatives = draw(4, 3, 5, 2)
    others = negatives if with_negatives else None
    gradient = gradient_of(
        lambda q: info_nce(q, ops.convert_to_tensor(keys), 0.2, others)["loss"],
        queries,
    )
    assert np.isfinite(gradient).all()
    for i in np.ndindex(queries.shape):
        step = np.zeros(queries.shape)
        step[i] = 1e-5
        ahead, behind = (
            by_loops(queries + sign * step, keys, 0.2, others)[0]
            for sign in (1, -1)
        )
        expected = (ahead - behind) / 2e-5
        assert gradient[i] == pytest.approx(expected, rel=1e-2, abs=1e-4)


@pytest.mark.parametrize("start", [0.0, 1.0])
def test_the_gradient_is_finite_at_collapse(start):
    negatives = ops.normalize(ops.ones((5, 3)), axis=-1)
    gradient = gradient_of(
        lambda q: info_nce(q, ops.ones((4, 3)), 0.07, negatives)["loss"],
        np.full((4, 3), start, "float32"),
    )
    assert np.isfinite(gradient).all()
