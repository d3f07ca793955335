"""SwAV's assignments and loss against loops of the authors' code."""

import math
import threading
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from kerassl.losses import sinkhorn, swapped_prediction
from tests.backends import calls, compiled, examples, once


def sinkhorn_by_loops(scores, epsilon, iterations):
    """`distributed_sinkhorn` of facebookresearch/swav, `main_swav.py`."""
    samples, prototypes = scores.shape
    q = np.zeros((prototypes, samples))
    for k in range(prototypes):
        for b in range(samples):
            q[k, b] = math.exp(float(scores[b, k]) / epsilon)
    q /= sum(q.ravel())
    for _ in range(iterations):
        for k in range(prototypes):
            q[k] = q[k] / sum(q[k]) / prototypes
        for b in range(samples):
            q[:, b] = q[:, b] / sum(q[:, b]) / samples
    return (q * samples).T


def loss_by_loops(scores, assignments, temperature):
    """The paper's mean over the assigned views, then over the others."""
    loss = 0.0
    for i, q in enumerate(assignments):
        subloss = 0.0
        for v, x in enumerate(scores):
            if v == i:
                continue
            for b in range(len(x)):
                exps = [math.exp(float(s) / temperature) for s in x[b]]
                for k in range(len(exps)):
                    p = exps[k] / sum(exps)
                    subloss -= q[b, k] * math.log(p) / len(x)
        loss += subloss / (len(scores) - 1)
    return loss / len(assignments)


def cosines(count, prototypes, seed, dim=6):
    rng = np.random.default_rng(seed)
    z, c = rng.normal(size=(count, dim)), rng.normal(size=(prototypes, dim))
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    c /= np.linalg.norm(c, axis=1, keepdims=True)
    return (z @ c.T).astype("float32")


def assigned(scores, *arguments, **kwargs):
    found = compiled(lambda scores: sinkhorn(scores, *arguments, **kwargs))
    return ops.convert_to_numpy(found(ops.convert_to_tensor(scores)))


# === sinkhorn ===


@settings(max_examples=examples(8))
@given(
    count=st.integers(1, 9),
    prototypes=st.integers(2, 8),
    epsilon=st.sampled_from([0.03, 0.05, 0.5]),
    iterations=st.integers(1, 5),
    seed=st.integers(0, 1000),
)
def test_sinkhorn_is_the_authors(count, prototypes, epsilon, iterations, seed):
    scores = cosines(count, prototypes, seed)
    q = assigned(scores, epsilon, iterations)
    np.testing.assert_allclose(
        q,
        sinkhorn_by_loops(scores, epsilon, iterations),
        rtol=1e-3,
        atol=1e-5,
    )
    np.testing.assert_allclose(q.sum(axis=1), 1, rtol=1e-5)


def test_the_defaults_are_the_authors():
    scores = cosines(8, 5, 0)
    np.testing.assert_allclose(
        assigned(scores), sinkhorn_by_loops(scores, 0.05, 3), atol=1e-5
    )


def test_many_iterations_use_all_prototypes_equally():
    q = assigned(cosines(32, 8, 0), 0.5, 50)
    np.testing.assert_allclose(q.sum(axis=0), 4, rtol=1e-3)


@settings(max_examples=examples(8))
@given(
    count=st.integers(1, 8),
    left_out=st.integers(1, 8),
    prototypes=st.integers(2, 6),
    seed=st.integers(0, 1000),
)
def test_those_left_out_are_as_not_there(count, left_out, prototypes, seed):
    rng = np.random.default_rng(seed)
    scores = cosines(count + left_out, prototypes, seed)
    taking_part = np.zeros(count + left_out, "float32")
    taking_part[rng.permutation(count + left_out)[:count]] = 1
    taking_part = taking_part.astype(rng.choice(["float32", "float64"]))
    q = assigned(scores, 0.05, 3, ops.convert_to_tensor(taking_part))
    there = taking_part == 1
    np.testing.assert_allclose(
        q[there], sinkhorn_by_loops(scores[there], 0.05, 3), atol=1e-5
    )
    np.testing.assert_array_equal(q[~there], 0)


@pytest.mark.parametrize("left_out", [False, True])
def test_devices_exchange_sums_of_columns(left_out):
    devices, scores = 3, cosines(12, 5, 0)
    taking_part = np.ones(12, "float32")
    if left_out:
        taking_part[:5] = 0  # All of the first device, one of the second.
    rows: list = [None] * devices
    exchanged = []
    barrier = threading.Barrier(devices)

    def on_device(device):
        def gather(row):
            rows[device] = row
            barrier.wait(timeout=60)
            found = ops.concatenate(rows)
            barrier.wait(timeout=60)
            exchanged.append(row.shape)
            return found

        own = slice(4 * device, 4 * device + 4)
        return ops.convert_to_numpy(
            sinkhorn(
                ops.convert_to_tensor(scores[own]),
                taking_part=ops.convert_to_tensor(taking_part[own]),
                gather=gather,
            )
        )

    with ThreadPoolExecutor(devices) as pool:
        parts = list(pool.map(on_device, range(devices)))
    there = taking_part == 1
    np.testing.assert_allclose(
        np.concatenate(parts)[there],
        sinkhorn_by_loops(scores[there], 0.05, 3),
        atol=1e-5,
    )
    assert {tuple(shape) for shape in exchanged} == {(1, 5)}
    assert len(exchanged) == 3 * devices


@pytest.mark.parametrize("epsilon", [0.01, 0.05])
def test_those_left_out_do_not_set_the_scale(epsilon):
    # The zeros of an empty queue are far above these samples' scores.
    scores = np.array([[-0.99, -0.95], [-0.96, -0.98], [1, 1]], "float32")
    taking_part = ops.convert_to_tensor(np.array([1, 1, 0], "float32"))
    np.testing.assert_allclose(
        assigned(scores, epsilon, 3, taking_part)[:2],
        sinkhorn_by_loops(scores[:2], epsilon, 3),
        rtol=1e-3,
    )


@pytest.mark.skipif(
    keras.config.backend() != "tensorflow", reason="Asks TensorFlow's compiler"
)
@pytest.mark.every_backend
def test_those_left_out_stay_finite_when_compiled():
    import tensorflow as tf

    scores = cosines(16, 8, 0)
    taking_part = np.arange(16) % 3 < 2
    compiled = tf.function(sinkhorn, jit_compile=True)
    q = compiled(
        tf.constant(scores), 0.05, 3, tf.constant(taking_part, "float32")
    ).numpy()
    np.testing.assert_allclose(q.sum(axis=1), taking_part, rtol=1e-5)


@once
def test_no_exponential_underflows_slowly():
    scores, part = (
        ops.convert_to_tensor(x)
        for x in (cosines(16, 8, 0), np.arange(16) % 3 < 2)
    )
    found = calls(lambda: sinkhorn(scores, taking_part=part))
    assert found["_softmax"] == found["_log_softmax"] == 1
    assert not {"exp", "logsumexp"} & set(found)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sinkhorn_stays_finite_in_half_precision(dtype):
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (16, 8))
    signs[0], signs[:, 0] = 1, -1
    q = sinkhorn(ops.cast(ops.convert_to_tensor(signs), dtype), 0.01)
    assert keras.backend.standardize_dtype(q.dtype) == "float32"
    q = ops.convert_to_numpy(q)
    assert np.isfinite(q).all()
    np.testing.assert_allclose(q.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("epsilon", [0.01, 0.05])
def test_no_sample_and_no_prototype_is_lost(epsilon):
    scores = np.full((4, 3), -1, "float32")
    scores[0], scores[1, 0], scores[2, 1] = 1, -0.99, -0.995
    np.testing.assert_allclose(
        assigned(scores, epsilon),
        sinkhorn_by_loops(scores, epsilon, 3),
        rtol=1e-3,
        atol=1e-5,
    )


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


def test_no_gradient_passes_the_assignments():
    scores = cosines(6, 4, 0)
    weights = ops.convert_to_tensor(cosines(6, 4, 1))
    gradient = gradient_of(
        lambda s: ops.sum(weights * sinkhorn(s)) + ops.sum(s), scores
    )
    np.testing.assert_allclose(gradient, 1, atol=1e-6)


# === swapped_prediction ===


@settings(max_examples=examples(8))
@given(
    count=st.integers(1, 8),
    prototypes=st.integers(2, 6),
    views=st.integers(2, 5),
    temperature=st.sampled_from([0.1, 0.5]),
    seed=st.integers(0, 1000),
)
def test_the_loss_is_the_papers(count, prototypes, views, temperature, seed):
    scores = [cosines(count, prototypes, seed + v) for v in range(views)]
    assignments = [sinkhorn_by_loops(s, 0.05, 3) for s in scores[:2]]
    loss = compiled(lambda *lists: swapped_prediction(*lists, temperature))(
        [ops.convert_to_tensor(s) for s in scores],
        [ops.convert_to_tensor(q.astype("float32")) for q in assignments],
    )["loss"]
    expected = loss_by_loops(scores, assignments, temperature)
    assert float(loss) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_uniform_predictions_cost_the_log_of_the_count():
    uniform = np.full((6, 30), 0.3, "float32")
    scores = [cosines(6, 30, 0), uniform, uniform]
    loss = swapped_prediction(scores, [sinkhorn(scores[0])])["loss"]
    assert float(loss) == pytest.approx(math.log(30), rel=1e-5)
    uniform_all = [uniform, uniform, uniform]
    assignments = [sinkhorn(uniform), sinkhorn(cosines(6, 30, 1))]
    loss = swapped_prediction(uniform_all, assignments)["loss"]
    assert float(loss) == pytest.approx(math.log(30), rel=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_loss_stays_finite_in_half_precision(dtype):
    scores = ops.cast(2 * ops.eye(8) - 1, dtype)
    q = sinkhorn(scores, 0.01)
    loss = swapped_prediction([scores, scores, -scores], [q, q], 0.01)["loss"]
    assert keras.backend.standardize_dtype(loss.dtype) == "float32"
    assert math.isfinite(float(loss))
