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
    class among all that rank at least as high. Unlike kNN, it depends on where
    the last image of the class ranks, not only on the nearest.

    Args:
        train_features: float array `(N, D)`, the images to search.
        train_labels: array `(N,)` or `(N, 1)`; as in `knn`.
        test_features: float array `(M, D)`, the queries.
        test_labels: array `(M,)` or `(M, 1)`, likewise. A query whose class
            isn't among the training images counts as 0.

    Returns:
        A dict: `accuracy`, the mean average precision, in [0, 1];
        `first`, the share of queries whose first image has their class;
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
    ranks = np.arange(1, len(y) + 1)
    precisions, firsts = [], []
    for start in range(0, len(queries), BLOCK):
        rows = slice(start, start + BLOCK)
        order = np.argsort(-(queries[rows] @ bank), axis=1, kind="stable")
        same = y[order] == asked[rows, None]
        precision = np.cumsum(same, axis=1) / ranks
        found = np.maximum(same.sum(axis=1), 1)
        precisions.append((precision * same).sum(axis=1) / found)
        firsts.append(same[:, 0])
    return {
        "accuracy": float(np.mean(np.concatenate(precisions))),
        "first": float(np.mean(np.concatenate(firsts))),
        "train_size": len(y),
        "test_size": len(asked),
    }
