"""The nearest neighbors of images among themselves, in two feature spaces."""

from typing import Any

import numpy as np

from kerassl.evaluation.representation import BLOCK, on_sphere


def nearest_others(features: Any, k: int = 20) -> np.ndarray:
    """Finds the nearest neighbors of each image among the others.

    Args:
        features: float array `(N, D)`.
        k: int in [1, N - 1], the number of neighbors.

    Returns:
        An int array `(N, k)` of indices, in no order, by cosine similarity.

    Raises:
        ValueError: if the shape is wrong, a feature isn't finite, or `k` is
            out of range.
    """
    x = on_sphere(features)
    count = len(x)
    if not 1 <= k < count:
        raise ValueError(
            f"`k` must be between 1 and {count - 1}, for {count} images. "
            f"Received: {k}"
        )
    found = np.empty((count, k), "int64")
    for start in range(0, count, BLOCK):
        near = x[start : start + BLOCK] @ x.T
        rows = np.arange(len(near))
        near[rows, start + rows] = -np.inf
        found[start + rows] = np.argpartition(near, -k, axis=1)[:, -k:]
    return found


def neighborhood_agreement(
    features_1: Any, features_2: Any, k: int = 20
) -> float:
    """Computes the share of neighbors that images have in two feature spaces.

    It compares two encoders, or one before and after training, without labels,
    whatever the widths of their features.

    Args:
        features_1: float array `(N, D)`.
        features_2: float array `(N, E)`, of the same images.
        k: int in [1, N - 1], the number of neighbors of each image.

    Returns:
        A float in [0, 1]: 1 if all neighborhoods are the same, about
        `k / (N - 1)` if they are unrelated.

    Raises:
        ValueError: as `nearest_others`, or if the numbers of images differ.

    Example:
    ```python
    kerassl.evaluation.neighborhood_agreement(
        model.embed(images), kerassl.encoders.embed(start, images)
    )
    ```
    """
    near = [nearest_others(x, k) for x in (features_1, features_2)]
    if len(near[0]) != len(near[1]):
        raise ValueError(
            "Both need features of the same images. Received: "
            f"{len(near[0])} and {len(near[1])} images"
        )
    return shared(*near)


def shared(near_1: np.ndarray, near_2: np.ndarray) -> float:
    """Returns the share of the indices in two results of `nearest_others`."""
    # A row has no index twice, so that two equal ones are a shared one.
    both = np.sort(np.concatenate([near_1, near_2], axis=1), axis=1)
    return float((both[:, 1:] == both[:, :-1]).sum() / near_1.size)


def classified(near: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Classifies each image by the majority of its neighbors.

    Args:
        near: the result of `nearest_others`.
        labels: int array `(N,)`.

    Returns:
        A bool array `(N,)`, whether the class is right.
    """
    classes, numbers = np.unique(labels, return_inverse=True)
    votes = np.zeros((len(near), len(classes)), "int64")
    np.add.at(votes, (np.arange(len(near))[:, None], numbers[near]), 1)
    return votes.argmax(axis=1) == numbers
