"""Weighted nearest-neighbour classification of frozen features."""

from typing import Any

import numpy as np

# Test features a block: bounds the similarities to this many rows.
BLOCK = 256


def knn(
    train_features: Any,
    train_labels: Any,
    test_features: Any,
    test_labels: Any,
    k: int = 20,
    temperature: float = 0.07,
) -> dict[str, Any]:
    """Classifies test features by their nearest training features.

    Each of the k neighbours by cosine similarity votes for its label with the
    weight `exp(similarity / temperature)`. Nothing is trained; the score shows
    how well classes are grouped.

    Args:
        train_features: float array `(N, D)`, the bank.
        train_labels: int array `(N,)`.
        test_features: float array `(M, D)`.
        test_labels: int array `(M,)`.
        k: int in [1, N], the number of neighbours.
        temperature: float > 0. Small values trust the nearest ones more.

    Returns:
        A dict: `accuracy` in [0, 1], `k`, `temperature`, `train_size`,
        `test_size`.

    Raises:
        ValueError: if shapes don't fit, `k` exceeds the bank, or features are
            not finite.

    Example:
    ```python
    scores = kerassl.evaluation.knn(
        model.embed(train_images), train_labels,
        model.embed(test_images), test_labels,
    )
    scores["accuracy"]
    ```

    Reference:
        - [Wu et al., 2018](https://arxiv.org/abs/1805.01978)
    """
    bank, labels = _checked("train", train_features, train_labels)
    queries, truth = _checked("test", test_features, test_labels)
    if bank.shape[1] != queries.shape[1]:
        raise ValueError(
            "Training and test features must be of one width. Found "
            f"{bank.shape[1]} and {queries.shape[1]}."
        )
    if not 1 <= k <= len(bank):
        raise ValueError(
            f"`k` must be between 1 and the {len(bank)} training features. "
            f"Received: {k}"
        )
    if temperature <= 0:
        raise ValueError(
            f"`temperature` must be above 0. Received: {temperature}"
        )
    classes, labels = np.unique(labels, return_inverse=True)
    transposed = np.ascontiguousarray(bank.T)
    predicted = []
    for start in range(0, len(queries), BLOCK):
        similarities = queries[start : start + BLOCK] @ transposed
        nearest = np.argpartition(-similarities, k - 1, axis=1)[:, :k]
        near = np.take_along_axis(similarities, nearest, axis=1)
        # Relative to the nearest one: a small temperature can't overflow.
        weights = np.exp((near - near.max(axis=1, keepdims=True)) / temperature)
        votes = np.zeros((len(near), len(classes)))
        rows = np.arange(len(near))[:, None]
        np.add.at(votes, (rows, labels[nearest]), weights)
        predicted.append(classes[votes.argmax(axis=1)])
    return {
        "accuracy": float(np.mean(np.concatenate(predicted) == truth)),
        "k": k,
        "temperature": temperature,
        "train_size": len(bank),
        "test_size": len(queries),
    }


def _checked(name: str, features: Any, labels: Any) -> tuple:
    if labels is None:
        raise ValueError(
            f"The {name} set has no labels, and kNN needs them. Give a labelled"
            " data set."
        )
    features = np.asarray(features, dtype="float32")
    labels = np.asarray(labels)
    if features.ndim != 2 or labels.shape != (len(features),):
        raise ValueError(
            f"The {name} set needs features (N, D) and labels (N,). Found "
            f"{features.shape} and {labels.shape}."
        )
    if len(features) == 0:
        raise ValueError(f"The {name} set is empty.")
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"{np.sum(~finite)} of {len(features)} {name} features are not "
            "finite: the encoder's weights are NaN or infinite."
        )
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.maximum(norms, 1e-12), labels
