"""SEED's loss against loops of the paper's formula."""

import math

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from kerassl.losses import similarity_distillation
from tests.backends import compiled, examples, gradient_of


def by_loops(predictions, targets, queue, temperature):
    total, cosines = 0.0, []
    for p, t in zip(predictions, targets):
        p, t = p / np.linalg.norm(p), t / np.linalg.norm(t)
        cosines.append(p @ t)
        filled = [q / np.linalg.norm(q) for q in queue if q.any()]
        student, teacher = (
            [math.exp(float(row @ q) / temperature) for q in filled]
            for row in (p, t)
        )
        for a, b in zip(teacher, student):
            share = a / sum(teacher)
            total += share * math.log(share / (b / sum(student)))
    return total / len(predictions), np.mean(cosines)


@settings(max_examples=examples(8))
@given(
    count=st.integers(1, 6),
    empty=st.integers(0, 3),
    temperature=st.sampled_from([0.07, 0.5]),
    seed=st.integers(0, 1000),
)
def test_it_is_the_papers(count, empty, temperature, seed):
    rng = np.random.default_rng(seed)
    p, t = rng.normal(size=(2, count, 5)).astype("float32")
    queue = rng.normal(size=(4 + empty, 5)).astype("float32")
    queue[4:] = 0.0
    found = compiled(lambda *x: similarity_distillation(*x, temperature))(
        *map(ops.convert_to_tensor, (p, t, queue))
    )
    loss, cosine = by_loops(p, t, queue, temperature)
    assert float(found["loss"]) == pytest.approx(loss, rel=1e-4, abs=1e-5)
    assert float(found["teacher_similarity"]) == pytest.approx(cosine, abs=1e-5)


def test_no_gradient_reaches_the_teacher():
    rng = np.random.default_rng(0)
    p, t, queue = rng.normal(size=(3, 6, 5)).astype("float32")

    def loss(targets):
        return similarity_distillation(p, targets, queue)["loss"]

    assert np.abs(gradient_of(loss, t)).max() == 0

    def loss_of_student(predictions):
        return similarity_distillation(predictions, t, queue)["loss"]

    assert np.abs(gradient_of(loss_of_student, p)).max() > 1e-3
    # A perfect student has nothing to learn.
    assert float(loss_of_student(t)) == pytest.approx(0, abs=1e-5)
    assert np.abs(gradient_of(loss_of_student, t)).max() < 1e-5


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_stays_finite(dtype):
    rng = np.random.default_rng(0)
    arrays = rng.normal(size=(3, 6, 5)).astype("float32") * 1e3
    arrays[2, 3:] = 0.0
    p, t, queue = (ops.cast(ops.convert_to_tensor(a), dtype) for a in arrays)
    for value in similarity_distillation(p, t, queue, 0.01).values():
        assert keras.backend.standardize_dtype(value.dtype) == "float32"
        assert math.isfinite(float(value))
