"""Labeled images to learn from and to classify."""

from typing import Any

from kerassl.data import ImageData, check_images
from kerassl.data.photos import Photos
from kerassl.evaluation.labels import (
    Class,
    encode_labels,
    label_array,
    labels_by_name,
)
from kerassl.training.in_memory import read_labeled


def labeled_sets(
    train: Any, test: Any
) -> tuple[ImageData, ImageData, list[Class]]:
    """Returns both sets with numbered labels, and the classes.

    Args:
        train: `(images, labels)`, as in `kerassl.evaluation.fine_tune`.
        test: likewise.

    Raises:
        ValueError: if labels are missing, or images or labels are invalid.
    """
    given = read_labeled(train, "train"), read_labeled(test, "test")
    for name, (images, labels) in zip(("train", "test"), given):
        if labels is None:
            raise ValueError(
                f"The {name} set has no labels, but they are needed. Give a "
                "labeled data set."
            )
        if not isinstance(images, Photos):  # They are always valid.
            check_images(images, name)
        label_array(labels, name, len(images))
    labels = dict(zip(("train", "test"), labels_by_name(*given)))
    classes, numbers = encode_labels(labels)
    learned, asked = (
        ImageData(images, part) for (images, _), part in zip(given, numbers)
    )
    return learned, asked, classes
