import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerassl.evaluation import few_labels
from kerassl.evaluation.few_labels import split_off
from tests.backends import examples

LABELS = np.repeat([3, 5, 9], [40, 60, 100])


@settings(max_examples=examples(30))
@given(
    share=st.floats(0.001, 1.0),
    seed=st.integers(0, 99),
    counts=st.lists(st.integers(1, 30), min_size=2, max_size=5),
)
def test_a_share_of_each_class(share, seed, counts):
    labels = np.random.default_rng(seed).permutation(
        np.repeat(np.arange(len(counts)), counts)
    )
    chosen = few_labels(labels, share=share, seed=seed)
    assert np.all(np.diff(chosen) > 0)
    for one, count in enumerate(counts):
        expected = max(1, round(share * count))
        assert np.sum(labels[chosen] == one) == expected


def test_as_many_of_each_class():
    chosen = few_labels(LABELS, per_class=7)
    assert np.unique(LABELS[chosen], return_counts=True)[1].tolist() == [7] * 3


def test_a_seed_gives_the_same_and_fewer_are_a_part_of_more():
    few, same, other = (
        few_labels(LABELS, per_class=5, seed=seed) for seed in (1, 1, 2)
    )
    assert (few == same).all() and (few != other).any()
    assert set(few) < set(few_labels(LABELS, per_class=20, seed=1))
    assert set(few) < set(few_labels(LABELS, share=0.5, seed=1))


def test_a_part_to_choose_by():
    first, second = split_off(LABELS, 0.2)
    assert sorted([*first, *second]) == list(range(200))
    counts = np.unique(LABELS[second], return_counts=True)[1]
    assert counts.tolist() == [8, 12, 20]
    first, second = split_off(np.array([0, 0, 1, 1]))
    assert len(first) == len(second) == 2
    # The only image of a class is learned from.
    first, second = split_off(np.array([0, 1, 0, 2]))
    assert {1, 3} < set(first) and len(second) == 1
    assert split_off(np.array([0, 2, 1])) is None


@pytest.mark.parametrize(
    "labels,arguments,message",
    [
        (LABELS, {}, "either `share` or `per_class`"),
        (LABELS, dict(share=0.1, per_class=1), "either"),
        (LABELS, dict(share=0.0), "`share` must be in"),
        (LABELS, dict(share=1.1), "`share` must be in"),
        (LABELS, dict(per_class=0), "`per_class` must be at least 1"),
        (LABELS, dict(per_class=41), "class 3 has 40 images"),
        (np.ones(9, int), dict(share=0.5), r"two classes.*\[1\]"),
        (np.ones((9, 2), int), dict(share=0.5), "integers of shape"),
        (np.linspace(0, 1, 9), dict(share=0.5), "dtype=float64"),
    ],
)
def test_bad_arguments_are_refused(labels, arguments, message):
    with pytest.raises(ValueError, match=message):
        few_labels(labels, **arguments)
