import numpy as np
import pytest

from kerassl.evaluation import linear_probe
from kerassl.evaluation.few_labels import split_off
from kerassl.evaluation.linear import DEFAULT_PENALTY, PENALTIES


def clusters(count=300, classes=3, dim=6, noise=1.0, seed=0):
    """Gaussian clusters, with scales that differ by millions."""
    rng = np.random.default_rng(seed)
    centers = np.random.default_rng(7).normal(size=(classes, dim))
    labels = rng.integers(0, classes, count)
    x = centers[labels] + noise * rng.normal(size=(count, dim))
    return (x * np.logspace(-3, 3, dim) + 5).astype("float32"), 10 * labels


@pytest.mark.parametrize("penalty", [1e-1, 1e-3])
def test_it_is_the_minimum(penalty):
    """Gradient descent in NumPy predicts the same."""
    x, y = clusters()
    x_test, y_test = clusters(seed=1)
    scores = linear_probe(x, y, x_test, y_test, penalties=[penalty])
    mean, std = x.mean(0, "float64"), x.std(0, dtype="float64")
    x, x_test = (x - mean) / std, (x_test - mean) / std
    targets = np.eye(3)[y // 10]
    weights, bias = np.zeros((6, 3)), np.zeros(3)
    for _ in range(5000):
        logits = x @ weights + bias
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        weights -= 0.5 * (x.T @ (p - targets) / len(x) + penalty * weights)
        bias -= 0.5 * (p - targets).mean(axis=0)
    expected = np.mean((x_test @ weights + bias).argmax(1) == y_test // 10)
    assert scores["accuracy"] == pytest.approx(expected, abs=0.005)
    assert scores["penalty"] == penalty
    assert (scores["train_size"], scores["test_size"]) == (300, 300)


def test_separate_clusters_are_told_apart():
    x, y = clusters(noise=0.05)
    x_test, y_test = clusters(noise=0.05, seed=1)
    scores = linear_probe(x, y, x_test, y_test)
    assert scores["accuracy"] == scores["validation_accuracy"] == 1.0
    # Of equals, the strongest penalty.
    assert scores["penalty"] == PENALTIES[0]


def test_the_penalty_is_chosen_on_a_fifth_of_the_training_labels():
    rng = np.random.default_rng(0)
    # Many useless features: a weak penalty overfits.
    x, y = rng.normal(size=(60, 200)), np.arange(60) % 2
    x[:, 0] += 4 * y
    x_test, y_test = rng.normal(size=(400, 200)), np.arange(400) % 2
    x_test[:, 0] += 4 * y_test
    scores = linear_probe(x, y, x_test, y_test)
    fitted, held = split_off(y)
    tried = [
        linear_probe(x[fitted], y[fitted], x[held], y[held], penalties=[p])
        for p in PENALTIES
    ]
    best = max(found["accuracy"] for found in tried)
    assert scores["validation_accuracy"] == best
    assert scores["penalty"] == next(
        p for p, found in zip(PENALTIES, tried) if found["accuracy"] == best
    )
    # The test labels choose nothing.
    turned = linear_probe(x, y, x_test, 1 - y_test)
    assert turned["penalty"] == scores["penalty"]
    assert turned["accuracy"] == pytest.approx(1 - scores["accuracy"])


@pytest.mark.parametrize("penalties", [(1e-5, 1.0), (1.0, 1e-5)])
def test_the_strongest_penalty_wins_a_tie(penalties):
    x = np.repeat([[0.0], [1.0]], 20, axis=0)
    y = np.repeat([0, 1], 20)
    found = linear_probe(x, y, x, y, penalties=penalties)
    assert found["penalty"] == 1.0


def test_again_it_is_the_same():
    x, y = clusters(noise=2.0)
    first, second = (linear_probe(x, y, x, y) for _ in range(2))
    assert first == second


def test_one_label_a_class_is_enough():
    x, y = clusters(noise=0.05)
    rows = [int(np.flatnonzero(y == one)[0]) for one in (0, 10, 20)]
    scores = linear_probe(x[rows], y[rows], x, y)
    assert scores["accuracy"] > 0.9
    assert scores["penalty"] == DEFAULT_PENALTY
    assert scores["validation_accuracy"] is None
    scores = linear_probe(x[rows], y[rows], x, y, penalties=(1e-3, 1e-4, 1e-5))
    assert scores["penalty"] == 1e-4


def test_dead_features_are_left_out():
    x, y = clusters(noise=0.05)
    dead = np.full((300, 1), 7.1, "float32")
    x_test = np.concatenate([x, dead + 1e4], axis=1)
    scores = linear_probe(np.concatenate([x, dead], axis=1), y, x_test, y)
    assert scores["accuracy"] == 1.0


@pytest.mark.parametrize(
    "change,message",
    [
        (lambda x, y: (x, np.zeros_like(y)), r"two classes. Found: \[0\]"),
        (lambda x, y: (x, None), "train set has no labels"),
        (lambda x, y: (x, y[:-1]), "features"),
        (lambda x, y: (x[:, :-1], y), "the same width. Received: 5 and 6"),
        (lambda x, y: (np.where(x > 5, np.nan, x), y), "not finite"),
    ],
)
def test_bad_input_is_refused(change, message):
    x, y = clusters()
    with pytest.raises(ValueError, match=message):
        linear_probe(*change(x, y), x, y)


@pytest.mark.parametrize("penalties", [(), (0.1, 0.0), (-1.0,), (np.nan,)])
def test_penalties_are_above_zero(penalties):
    x, y = clusters()
    with pytest.raises(ValueError, match="`penalties` must be above 0"):
        linear_probe(x, y, x, y, penalties=penalties)
