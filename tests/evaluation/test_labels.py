"""Labels of any dtype, against plain Python."""

import os

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerassl.callbacks import KNNMonitor, LinearProbeMonitor
from kerassl.data import ImageData
from kerassl.evaluation import (
    Neighbors,
    few_labels,
    fine_tune,
    knn,
    linear_probe,
)
from kerassl.evaluation.labeled import labeled_sets
from kerassl.evaluation.labels import encode_labels, labels_by_name
from tests.backends import examples
from tests.contracts.methods import tiny_encoder

EXAMPLES = int(os.environ.get("KERASSL_EXAMPLES", 40))
INTS = [f"{kind}int{bits}" for kind in ("", "u") for bits in (8, 16, 32, 64)]
FLOATS = ["float16", "float32", "float64"]
# Not of the alphabet alone: spaces, accents, and what begins alike.
NAMES = ["", "cat", "catfish", "Cat", "cat ", "chat échaudé", "猫", "7"]


def holds(dtype, values):
    """Says if numbers stay what they are in a dtype."""
    try:
        with np.errstate(over="ignore"):
            return np.array(values, object).astype(dtype).tolist() == values
    except OverflowError:
        return False


@st.composite
def labels_as(draw, values):
    """Labels in one of the forms that hold them all."""
    forms = [list, lambda v: np.array(v, object)]
    if isinstance(values[0], str):
        forms += [np.array, lambda v: np.array([w.encode() for w in v], object)]
        forms += [lambda v: [np.str_(w) for w in v]]
        if "猫" not in values:
            forms += [lambda v: np.array([w.encode("utf-8") for w in v])]
    else:
        for dtype in INTS + FLOATS + ["bool"]:
            if holds(dtype, values):
                forms.append(lambda v, dtype=dtype: np.array(v, dtype))
    form = draw(st.sampled_from(forms))
    labels = form(values)
    if not draw(st.booleans()):
        return labels
    if isinstance(labels, list):
        return [[label] for label in labels]
    return labels[:, None]


@st.composite
def two_sets(draw):
    """Values of a training and a test set, and two forms of them."""
    pool = draw(
        st.sampled_from(
            [
                st.integers(0, 3),
                st.integers(-3, 3),
                st.sampled_from([44, 300, 300 - 2**16, 2**31, -(2**40)]),
                st.sampled_from([-1, 2**24, 2**24 + 1, 2**53 + 1, 2**63]),
                st.booleans().map(int),
                st.sampled_from(NAMES),
            ]
        )
    )
    train = draw(st.lists(pool, min_size=2, max_size=12))
    test = draw(st.lists(pool, min_size=1, max_size=12))
    return train, test, draw(labels_as(train)), draw(labels_as(test))


def numbered(train, test):
    """Numbers classes as a reader would, in Python."""
    classes = []
    for value in sorted(train + test):
        if value not in classes:
            classes.append(value)
    return [[classes.index(v) for v in part] for part in (train, test)]


@settings(max_examples=examples(EXAMPLES))
@given(two_sets())
def test_classes_are_numbered_as_in_a_loop(sets):
    train, test, train_labels, test_labels = sets
    classes, numbers = encode_labels(
        {"train": train_labels, "test": test_labels}
    )
    assert [n.tolist() for n in numbers] == numbered(train, test)
    assert classes == sorted(set(train + test))


@settings(max_examples=examples(EXAMPLES))
@given(two_sets(), st.integers(1, 12), st.integers(0, 999))
def test_knn_is_that_of_a_loop(sets, k, seed):
    train, test, train_labels, test_labels = sets
    k = min(k, len(train))
    rng = np.random.default_rng(seed)
    bank, queries = (
        rng.normal(size=(len(train), 4)),
        rng.normal(size=(len(test), 4)),
    )
    correct = unclear = 0
    for query, truth in zip(queries, test):
        cosines = [
            float(x @ query / np.linalg.norm(x) / np.linalg.norm(query))
            for x in bank
        ]
        nearest = sorted(range(len(train)), key=lambda i: -cosines[i])
        votes = {}
        for i in nearest[:k]:
            votes.setdefault(train[i], 0.0)
            votes[train[i]] += np.exp(cosines[i] / 0.5)
        best = max(votes, key=votes.get)
        correct += best == truth
        # The rounding of float32 may decide these.
        ranked = sorted(votes.values())
        unclear += len(ranked) > 1 and ranked[-1] - ranked[-2] < 1e-4
        unclear += (
            k < len(train)
            and cosines[nearest[k - 1]] - cosines[nearest[k]] < 1e-5
        )
    scores = knn(bank, train_labels, queries, test_labels, k, temperature=0.5)
    assert abs(scores["accuracy"] * len(test) - correct) <= unclear + 1e-6
    # A bank in two batches may have two dtypes.
    neighbors = Neighbors(queries, test_labels, k, temperature=0.5)
    for rows in (slice(0, 1), slice(1, None)):
        neighbors.add(bank[rows], np.array(train, object)[rows])
    assert neighbors.score() == scores


@settings(max_examples=examples(EXAMPLES // 4))
@given(two_sets(), st.integers(0, 999))
def test_what_learns_sees_the_same_classes(sets, seed):
    """As of the numbers that a loop gives them."""
    train, test, train_labels, test_labels = sets
    if len(set(train)) < 2:
        train, train_labels = train + test, train + test
    if len(set(train)) < 2:
        return
    plain, truth = numbered(train, test)
    rng = np.random.default_rng(seed)
    x, x_test = (
        rng.normal(size=(len(train), 3)),
        rng.normal(size=(len(test), 3)),
    )
    found = linear_probe(x, train_labels, x_test, test_labels)
    assert found == linear_probe(x, plain, x_test, truth)
    chosen = few_labels(train_labels, share=0.5, seed=seed)
    np.testing.assert_array_equal(
        chosen, few_labels(np.array(plain), share=0.5, seed=seed)
    )


def tensors(values):
    """Labels as the backend's own tensors."""
    yield keras.ops.convert_to_tensor(values, "int32")
    yield keras.ops.convert_to_tensor(values, "uint8")
    yield keras.ops.convert_to_tensor(values, "bfloat16")
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        yield tf.constant(values, "int64")[:, None]


@pytest.mark.every_backend
def test_tensors_are_labels():
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(12, 4)), [3, 1, 2] * 4
    expected = knn(x, labels, x[:6], labels[:6], k=3)
    for train in tensors(labels):
        assert knn(x, train, x[:6], labels[:6], k=3) == expected
        assert knn(x, labels, x[:6], train[:6], k=3) == expected
        assert few_labels(train, per_class=1).tolist() == (
            few_labels(labels, per_class=1).tolist()
        )
    features = keras.ops.convert_to_tensor(x, "float32")
    assert knn(features, labels, features[:6], labels[:6], k=3) == expected
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        names = tf.constant(["c", "a", "b"] * 4)
        as_strings = knn(x, names, x[:6], ["c", "a", "b"] * 2, k=3)
        assert as_strings == expected


ONE_HOT = np.eye(3)[[0, 1, 2, 0]]


@pytest.mark.parametrize(
    "labels,message",
    [
        (ONE_HOT, r"shape=\(4, 3\).*one-hot.*argmax"),
        (ONE_HOT[:, :2].astype(int), "one-hot"),
        (np.array([0, 1, np.nan, 1]), "nan"),
        (np.array([0, 1, np.inf, 1]), "inf"),
        ([0, 1, 0.5, 1], "0.5.*dtype=float64"),
        ([0, 1, None, 1], "None"),
        (["a", "b", float("nan"), "a"], "nan"),
        (["1", 1, "2", 2], "both numbers and strings"),
        (np.array(["a", "b", "c", "d"]), "Received: .* in `t.*_labels`"),
        (np.array([1, 2, 3, 4], "complex64"), "dtype=complex64"),
        (np.array([1, 2, 3, 4], "datetime64[s]"), "dtype=datetime64"),
        (np.ma.array([0, 1, 0, 1], mask=[0, 0, 1, 0]), "masked"),
        ([0, 1, 0], r"and \(3,\)"),
        (3, r"shape=\(\)"),
        ([[0], [1], [0, 1], [1]], "labels"),
    ],
)
def test_what_are_no_labels_is_refused(labels, message):
    x, numbers = np.random.default_rng(0).normal(size=(4, 3)), [0, 1, 0, 1]
    for measure in (knn, linear_probe):
        options = {"k": 1} if measure is knn else {}
        for sets in ((labels, numbers), (numbers, labels)):
            with pytest.raises(ValueError, match=message):
                measure(x, sets[0], x, sets[1], **options)
    if "Received" not in message and "and" not in message:
        with pytest.raises(ValueError):
            few_labels(labels, share=0.5)


def test_images_with_labels_of_any_dtype(images):
    """Of fine-tuning and of monitors; the encoder's features are the same."""
    numbers = np.arange(32) % 2
    names = np.array(["cat", "catfish"])[numbers]
    train, test = images[:32], images[32:48]
    encoder = tiny_encoder()
    for a, b in (
        (300 * numbers[:, None], (300 * numbers[:16]).astype("uint16")),
        (names, names[:16].astype("S")),
    ):
        learned, asked, _ = labeled_sets((train, a), (test, b))
        np.testing.assert_array_equal(learned.labels, numbers)
        np.testing.assert_array_equal(asked.labels, numbers[:16])
    # A class of the test images that has no training images.
    unknown = np.full(16, "cat", "S3")
    scores = fine_tune(
        encoder,
        (train, np.array(["catfish", "dog"])[numbers]),
        (test, unknown),
        epochs=1,
        learning_rate=0.1,
    )
    assert scores["accuracy"] == 0.0
    for monitor in (KNNMonitor, LinearProbeMonitor):
        watch = monitor((train, 300 * numbers[:, None]), (test, [44] * 16))
        features = np.random.default_rng(0).normal(size=(48, 4))
        train_labels, test_labels = watch.train[1], watch.test[1]
        assert not set(train_labels) & set(test_labels)
        score = watch.score(
            (features[:32], train_labels), (features[32:], test_labels)
        )
        assert score == 0.0
        with pytest.raises(ValueError, match="one-hot"):
            monitor((train, np.eye(2)[numbers]), (test, numbers[:16]))
    with pytest.raises(ValueError, match="one-hot"):
        fine_tune(encoder, (train, np.eye(2)[numbers]), (test, numbers[:16]))


def test_classes_of_two_sources_are_compared_by_name(images):
    """The same number may be another class in another folder."""
    train = ImageData(images[:4], np.array([0, 1, 2, 1]), ("ant", "bee", "cat"))
    test = ImageData(images[:3], np.array([0, 1, -1]), ("bee", "cat"))
    found = [one.tolist() for one in labels_by_name(train, test)]
    assert found == [["ant", "bee", "cat", "bee"], ["bee", "cat", "label -1"]]
    # A source of the same names keeps its numbers, and so does one of none.
    for other in (train, (images[:4], np.array([3, 4, 5, 6]))):
        first, second = labels_by_name(train, other)
        assert first.tolist() == train.labels.tolist()
        assert second.tolist() == tuple(other)[1].tolist()
    names = np.array(["bee", "dog", "ant", "ant"])
    assert labels_by_name(train, (images[:4], names))[0].tolist() == found[0]
    watch = KNNMonitor(train, test, k=1)
    assert watch.train[1].tolist() == [0, 1, 2, 1]
    assert watch.test[1].tolist() == [1, 2, 3]
