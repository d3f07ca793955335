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
    rng = np.random.default_rng(seed)
    chosen = []
    for one, count in enumerate(counts.tolist()):
        number = per_class or max(1, round(share * count))
        order = rng.permutation(np.flatnonzero(numbers == one))
        chosen.append(order[:number])
    return np.sort(np.concatenate(chosen))


def split_off(
    labels: np.ndarray, share: float = 0.2, seed: int = 0
) -> tuple[np.ndarray, np.ndarray] | None:
    """Splits labeled images in a training and a validation part.

    Args:
        labels: int array `(N,)`.
        share: float in (0, 1), the validation part's share of each class, at
            least one image.
        seed: int >= 0.

    Returns:
        Two arrays of indices, or `None` if a class has only one image.
    """
    if np.unique(labels, return_counts=True)[1].min() < 2:
        return None
    second = few_labels(labels, share=share, seed=seed)
    return np.setdiff1d(np.arange(len(labels)), second), second
