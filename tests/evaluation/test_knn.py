"""Weighted kNN against scikit-learn's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier

from kerassl.evaluation import Neighbors, knn
from kerassl.evaluation.knn import _largest
from tests.backends import examples

pytestmark = pytest.mark.every_backend


def unclear_queries(bank, labels, queries, k, temperature):
    """Counts the queries that the rounding of float32 may decide.

    Those with two neighbors at the edge, or two classes in front, that differ
    by less than float32 tells apart.
    """
    bank, queries = (
        x / np.linalg.norm(x, axis=1, keepdims=True) for x in (bank, queries)
    )
    similar = queries @ bank.T
    order = np.argsort(-similar, axis=1)
    near = np.take_along_axis(similar, order[:, : k + 1], axis=1)
    count = 0
    for row, found in zip(near, labels[order]):
        edge = k < len(found) and row[k - 1] - row[k] < 1e-6
        votes = np.exp((row[:k] - row[0]) / temperature)
        sums = sorted(votes[found[:k] == c].sum() for c in set(found[:k]))
        front = len(sums) > 1 and sums[-1] - sums[-2] < 1e-4 * sums[-1]
        count += edge or front
    return count


@settings(max_examples=examples(25))
@given(
    train=st.integers(20, 300),
    test=st.integers(1, 600),
    dim=st.integers(2, 16),
    k=st.integers(1, 20),
    temperature=st.sampled_from([0.02, 0.07, 0.5]),
    seed=st.integers(0, 10_000),
)
def test_it_is_scikit_learns(train, test, dim, k, temperature, seed):
    rng = np.random.default_rng(seed)
    bank, queries = rng.normal(size=(train, dim)), rng.normal(size=(test, dim))
    labels = rng.integers(0, 4, train) * 7 - 3
    truth = rng.integers(0, 4, test) * 7 - 3
    classifier = KNeighborsClassifier(
        k,
        metric="cosine",
        algorithm="brute",
        weights=lambda distance: np.exp((1 - distance) / temperature),
    ).fit(bank, labels)
    scores = knn(bank, labels, queries, truth, k=k, temperature=temperature)
    expected = classifier.score(queries, truth)
    unclear = unclear_queries(bank, labels, queries, k, temperature)
    assert abs(scores["accuracy"] - expected) <= (unclear + 0.01) / test
    assert scores["k"] == k and scores["train_size"] == train


def test_scores_of_separate_classes():
    bank = np.repeat(np.eye(3), 10, axis=0)
    labels = np.repeat([0, 1, 2], 10)
    assert knn(bank, labels, np.eye(3), [0, 1, 2], k=5)["accuracy"] == 1.0
    assert knn(bank, labels, np.eye(3), [1, 2, 0], k=5)["accuracy"] == 0.0


def test_a_bank_may_come_in_batches():
    rng = np.random.default_rng(0)
    bank, queries = rng.normal(size=(90, 8)), rng.normal(size=(600, 8))
    labels, truth = rng.integers(0, 4, 90), rng.integers(0, 4, 600)
    neighbors = Neighbors(queries, truth, k=7)
    for start in (0, 5, 6, 50):  # Some batches are smaller than k.
        end = {0: 5, 5: 6, 6: 50, 50: 90}[start]
        neighbors.add(bank[start:end], labels[start:end])
    assert neighbors.score() == knn(bank, labels, queries, truth, k=7)
    few = Neighbors(queries, truth, k=7)
    few.add(bank[:6], labels[:6])
    with pytest.raises(ValueError, match="between 1 and the 6"):
        few.score()


@pytest.mark.parametrize(
    "change,message",
    [
        (dict(train_labels=None), "no labels"),
        (dict(test_labels=[0]), r"\(4, 3\) and \(1,\)"),
        (dict(test_features=np.ones((4, 2))), "3 and 2"),
        (dict(k=7), "between 1 and the 6"),
        (dict(k=0), "between 1"),
        (dict(temperature=0.0), "temperature"),
        (dict(train_features=np.full((6, 3), np.nan)), "not finite"),
        (dict(test_features=np.ones((0, 3)), test_labels=[]), "empty"),
    ],
)
def test_bad_input_is_refused(change, message):
    arguments = dict(
        train_features=np.ones((6, 3)),
        train_labels=np.arange(6),
        test_features=np.ones((4, 3)),
        test_labels=np.arange(4),
        k=2,
    )
    with pytest.raises(ValueError, match=message):
        knn(**(arguments | change))


@pytest.mark.parametrize("width", [30, 4095, 4096, 6001])
@pytest.mark.parametrize("k", [1, 20])
def test_the_largest_of_long_rows(width, k):
    rng = np.random.default_rng(width)
    rows = rng.normal(size=(7, width)).astype("float32")
    found = np.take_along_axis(rows, _largest(rows, k), axis=1)
    np.testing.assert_array_equal(
        np.sort(found, axis=1), np.sort(rows, axis=1)[:, -k:]
    )
