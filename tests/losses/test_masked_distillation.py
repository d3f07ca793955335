"""iBOT's patch loss against loops written from the paper's equation 2."""

import math

import numpy as np
import pytest
from keras import ops

from kerassl.losses import masked_distillation


def by_loops(student, teacher, mask, temperature):
    total = 0.0
    for n in range(len(mask)):
        terms = []
        for m in range(len(mask[n])):
            if mask[n][m]:
                exps = [math.exp(x / temperature) for x in student[n][m]]
                terms.append(
                    -sum(
                        q * math.log(e / sum(exps))
                        for q, e in zip(teacher[n][m], exps)
                    )
                )
        total += sum(terms) / max(len(terms), 1)
    return total / len(mask)


def test_against_loops():
    rng = np.random.default_rng(0)
    student = rng.normal(size=(4, 3, 5)) * 0.2
    teacher = rng.uniform(size=(4, 3, 5))
    teacher /= teacher.sum(axis=-1, keepdims=True)
    mask = np.array([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]])
    found = masked_distillation(
        *(
            ops.convert_to_tensor(x.astype("float32"))
            for x in (student, teacher, mask)
        ),
        temperature=0.1,
    )["loss"]
    expected = by_loops(student, teacher, mask, 0.1)
    assert float(found) == pytest.approx(expected, rel=1e-5)
