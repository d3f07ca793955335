"""Retrieval: images of the same class, ranked by similarity."""

from typing import Any

import numpy as np

from kerassl.evaluation.checks import check_features, check_widths, unit_rows
from kerassl.evaluation.labels import encode_labels

# Queries per block, which bounds the matrix of similarities.
BLOCK = 64


def retrieval(
    train_features: Any,
    train_labels: Any,
    test_features: Any,
    test_labels: Any,
) -> dict[str, Any]:
    """Searches for images of each test image's class among training images.

    The training images are ranked by cosine similarity. The average precision
    of a query is the mean, over the images of its class, of the share of that
    class among all that rank at least as high, ties included. Unlike kNN, it
    depends on where the last image of the class ranks, not only on the nearest.

    Args:
        train_features: float array `(N, D)`, the images to search.
        train_labels: array `(N,)` or `(N, 1)`; as in `knn`.
        test_features: float array `(M, D)`, the queries.
        test_labels: array `(M,)` or `(M, 1)`, likewise. A query whose class
            isn't among the training images counts as 0.

    Returns:
        A dict: `accuracy`, the mean average precision, in [0, 1];
        `first`, the share of queries whose first image has their class (of
        several that are equally similar, the share of that class among them);
        `train_size` and `test_size`.

    Raises:
        ValueError: if shapes or labels are invalid, or features aren't finite.

    Example:
    ```python
    scores = kerassl.evaluation.retrieval(
        model.embed(train_images), train_labels,
        model.embed(test_images), test_labels,
    )
    scores["accuracy"]
    ```
    """
    bank, y = check_features("train", train_features, train_labels)
    queries, asked = check_features("test", test_features, test_labels)
    check_widths(bank, queries)
    _, (y, asked) = encode_labels({"train_labels": y, "test_labels": asked})
    bank, queries = unit_rows(bank).T, unit_rows(queries)
    precisions, firsts = [], []
    for start in range(0, len(queries), BLOCK):
        rows = slice(start, start + BLOCK)
        distances = -(queries[rows] @ bank)
        order = np.argsort(distances, axis=1)
        same = y[order] == asked[rows, None]
        last = _last_of_ties(np.take_along_axis(distances, order, axis=1))
        counts = np.take_along_axis(np.cumsum(same, axis=1), last, axis=1)
        precision = counts / (last + 1)
        found = np.maximum(same.sum(axis=1), 1)
        precisions.append((precision * same).sum(axis=1) / found)
        firsts.append(precision[:, 0])
    return {
        "accuracy": float(np.mean(np.concatenate(precisions))),
        "first": float(np.mean(np.concatenate(firsts))),
        "train_size": len(y),
        "test_size": len(asked),
    }


def _last_of_ties(sorted_rows: np.ndarray) -> np.ndarray:
    """Returns for each entry the index of the last one that equals it."""
    columns = sorted_rows.shape[1]
    ends = np.full(sorted_rows.shape, True)
    ends[:, :-1] = sorted_rows[:, :-1] != sorted_rows[:, 1:]
    last = np.where(ends, np.arange(columns), columns)
    return np.minimum.accumulate(last[:, ::-1], axis=1)[:, ::-1]
