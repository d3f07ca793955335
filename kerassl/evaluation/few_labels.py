"""Draws a few labeled images, the same ones for every method."""

from typing import Any

import numpy as np

from kerassl.evaluation.labels import encode_labels


def few_labels(
    labels: Any,
    share: float | None = None,
    per_class: int | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Draws the images that keep their labels, in proportion to each class.

    The draw depends only on the labels and the seed. With the same seed, a
    smaller draw is a subset of a larger one.

    Args:
        labels: array `(N,)` or `(N, 1)`: ints, bools, whole floats, strings or
            bytes.
        share: float in (0, 1], the share of each class to draw, at least one
            image.
        per_class: int > 0, the number to draw from each class instead.
        seed: int >= 0.

    Returns:
        An int array of indices, sorted.

    Raises:
        ValueError: unless exactly one of `share` and `per_class` is given and
            in range, there are at least two classes, and each has enough
            images.

    Example:
    ```python
    chosen = kerassl.evaluation.few_labels(labels, per_class=10)
    images, labels = images[chosen], labels[chosen]
    ```
    """
    classes, (numbers,) = encode_labels({"labels": labels})
    if (share is None) == (per_class is None):
        raise ValueError(
            "Give either `share` or `per_class`. Received: "
            f"share={share}, per_class={per_class}"
        )
    if share is not None and not 0 < share <= 1:
        raise ValueError(f"`share` must be in (0, 1]. Received: {share}")
    if per_class is not None and per_class < 1:
        raise ValueError(
            f"`per_class` must be at least 1. Received: {per_class}"
        )
    counts = np.bincount(numbers)
    if len(classes) < 2:
        raise ValueError(
            f"Labels of at least two classes are needed. Found: {classes}"
        )
    if per_class is not None and counts.min() < per_class:
        raise ValueError(
            f"`per_class` is {per_class}, but class "
            f"{classes[counts.argmin()]} has {counts.min()} images."
        )
    wanted = [per_class or max(1, round(share * n)) for n in counts.tolist()]
    return _drawn(numbers, wanted, seed)


def split_off(
    labels: np.ndarray, share: float = 0.2, seed: int = 0
) -> tuple[np.ndarray, np.ndarray] | None:
    """Splits labeled images into a training and a validation part.

    Args:
        labels: int array `(N,)`.
        share: float in (0, 1), the validation part's share of each class, at
            least one image. The only image of a class stays in the first part.
        seed: int >= 0.

    Returns:
        Two arrays of indices, or `None` if every class has only one image.
    """
    _, numbers, counts = np.unique(
        labels, return_inverse=True, return_counts=True
    )
    if counts.max() == 1:
        return None
    wanted = [max(1, round(share * n)) * (n > 1) for n in counts.tolist()]
    second = _drawn(numbers, wanted, seed)
    return np.setdiff1d(np.arange(len(labels)), second), second


def _drawn(numbers: np.ndarray, wanted: list[int], seed: int) -> np.ndarray:
    """Draws images of each class; returns their indices in order.

    Args:
        numbers: int array `(N,)`, the classes, from 0.
        wanted: list of int, the number of images to draw of each class.
        seed: int >= 0.
    """
    rng = np.random.default_rng(seed)
    chosen = [
        rng.permutation(np.flatnonzero(numbers == one))[:count]
        for one, count in enumerate(wanted)
    ]
    return np.sort(np.concatenate(chosen))
