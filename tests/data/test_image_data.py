import numpy as np
import pytest

from kerassl.data import ImageData
from tests.backends import once

pytestmark = once


def data(labels=None, count=50):
    """Images whose first pixel is their number."""
    images = np.zeros((count, 2, 2, 1), "uint8")
    images[:, 0, 0, 0] = np.arange(count)
    labels = None if labels is None else np.array(labels)
    return ImageData(images, labels, name="numbers")


def numbers(part):
    return part.images[:, 0, 0, 0].tolist()


def test_split_takes_a_share_of_each_class():
    labels = [0] * 30 + [1] * 15 + [2] * 4 + [3]
    train, test = data(labels).split(0.2, seed=1)
    assert np.bincount(test.labels, minlength=4).tolist() == [6, 3, 1, 0]
    # The only image of a class is there to be learned from.
    assert np.bincount(train.labels).tolist() == [24, 12, 3, 1]
    assert sorted(numbers(train) + numbers(test)) == list(range(50))
    for part in (train, test):
        assert numbers(part) == sorted(numbers(part))
        assert part.labels.tolist() == [labels[i] for i in numbers(part)]
        assert part.name == "numbers"
    again, other = (data(labels).split(0.2, seed=seed) for seed in (1, 2))
    assert numbers(again[1]) == numbers(test) != numbers(other[1])


def test_a_few_are_evenly_spaced():
    whole = data(range(50))
    few = whole.limited(5)
    assert numbers(few) == few.labels.tolist() == [0, 10, 20, 30, 40]
    assert whole.limited(None) is whole is whole.limited(50)


def test_split_without_labels():
    train, test = data().split(0.3)
    assert len(train.images) == 35 and len(test.images) == 15
    assert sorted(numbers(train) + numbers(test)) == list(range(50))
    # Each part has an image, whatever the share.
    for fraction in (0.001, 0.999):
        parts = data(count=3).split(fraction)
        assert {len(part.images) for part in parts} == {1, 2}


def test_split_that_cannot_be():
    for fraction in (0, 1, -0.1, float("nan")):
        with pytest.raises(ValueError, match="fraction"):
            data().split(fraction)
    with pytest.raises(ValueError, match="two or more"):
        data([0, 1, 2], count=3).split()
    with pytest.raises(ValueError, match="two or more"):
        data(count=1).split()


def test_labels_and_paths_are_counted():
    with pytest.raises(ValueError, match="3 labels for 50 images"):
        data([0, 1, 2])
    with pytest.raises(ValueError, match="1 paths for 50 images"):
        ImageData(data().images, paths=("a.png",))
    assert data().paths is None and data().take(2).paths is None
