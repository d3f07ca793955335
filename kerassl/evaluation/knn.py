"""Weighted nearest-neighbor classification of frozen features."""

from typing import Any

import numpy as np

from kerassl.evaluation.checks import check_features, check_widths, unit_rows
from kerassl.evaluation.labels import Classes

# Test features per block, which bounds the matrix of similarities.
BLOCK = 256
# Groups of columns of a long row that are compared first.
GROUPS = 1024


def knn(
    train_features: Any,
    train_labels: Any,
    test_features: Any,
    test_labels: Any,
    k: int = 20,
    temperature: float = 0.07,
) -> dict[str, Any]:
    """Classifies test features by their nearest training features.

    Each of the k nearest neighbors by cosine similarity votes for its label
    with the weight `exp(similarity / temperature)`. Nothing is trained: the
    score shows how well the features group the classes.

    Args:
        train_features: float array `(N, D)`, the bank.
        train_labels: array `(N,)` or `(N, 1)`: ints, bools, whole floats,
            strings or bytes. Labels are compared by value, whatever their
            dtype.
        test_features: float array `(M, D)`.
        test_labels: array `(M,)` or `(M, 1)`, likewise. Images of a class that
            is not in the bank count as errors.
        k: int in [1, N], the number of neighbors.
        temperature: float > 0. Smaller values give nearer ones more weight.

    Returns:
        A dict: `accuracy` in [0, 1], `k`, `temperature`, `train_size`,
        `test_size`.

    Raises:
        ValueError: if shapes or labels are invalid, `k` exceeds the bank, or
            features are not finite.

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
    neighbors = Neighbors(test_features, test_labels, k, temperature)
    neighbors.add(train_features, train_labels)
    return neighbors.score()


class Neighbors:
    """kNN with a bank that is given batch by batch.

    For a bank that doesn't fit into memory: only the test features and the k
    nearest neighbors of each are kept.

    Args:
        test_features: float array `(M, D)`.
        test_labels: array `(M,)` or `(M, 1)`; see `knn`.
        k: int > 0, the number of neighbors.
        temperature: float > 0; see `knn`.

    Raises:
        ValueError: if shapes are invalid, features are not finite, or `k` or
            `temperature` is too small.

    Example:
    ```python
    neighbors = kerassl.evaluation.Neighbors(features, labels)
    for train_features, train_labels in batches:
        neighbors.add(train_features, train_labels)
    neighbors.score()["accuracy"]
    ```
    """

    def __init__(
        self,
        test_features: Any,
        test_labels: Any,
        k: int = 20,
        temperature: float = 0.07,
    ):
        self.classes = Classes()
        self.queries, self.truth = self._unit(
            "test", test_features, test_labels
        )
        if k < 1:
            raise ValueError(
                "`k` must be between 1 and the number of training features. "
                f"Received: {k}"
            )
        if not temperature > 0:
            raise ValueError(
                f"`temperature` must be above 0. Received: {temperature}"
            )
        self.k = k
        self.temperature = temperature
        self.train_size = 0
        shape = (len(self.queries), k)
        self.similarities = np.full(shape, -np.inf, "float32")
        self.labels = np.zeros(shape, "int64")

    def add(self, train_features: Any, train_labels: Any) -> None:
        """Adds a batch of the bank.

        Args:
            train_features: float array `(N, D)`.
            train_labels: array `(N,)` or `(N, 1)`; see `knn`.

        Raises:
            ValueError: if shapes are invalid, or features are not finite.
        """
        bank, labels = self._unit("train", train_features, train_labels)
        check_widths(bank, self.queries)
        self.train_size += len(bank)
        transposed = np.ascontiguousarray(bank.T)
        for start in range(0, len(self.queries), BLOCK):
            rows = slice(start, start + BLOCK)
            new = self.queries[rows] @ transposed
            near = np.concatenate([self.similarities[rows], new], axis=1)
            best = _largest(near, self.k)
            self.similarities[rows] = np.take_along_axis(near, best, axis=1)
            # The first k columns are the neighbors so far.
            kept = np.minimum(best, self.k - 1)
            self.labels[rows] = np.where(
                best < self.k,
                np.take_along_axis(self.labels[rows], kept, axis=1),
                labels[np.maximum(best - self.k, 0)],
            )

    def score(self) -> dict[str, Any]:
        """Returns the scores; see `knn`.

        Raises:
            ValueError: if `k` exceeds the bank.
        """
        if self.k > self.train_size:
            raise ValueError(
                f"`k` must be between 1 and the {self.train_size} training "
                f"features. Received: {self.k}"
            )
        # In the order of their values: the first class wins a tie.
        ranks = self.classes.ranks()
        classes, labels = np.unique(ranks[self.labels], return_inverse=True)
        near = self.similarities
        # Relative to the nearest, so that a small temperature can't overflow.
        near = near - near.max(axis=1, keepdims=True)
        votes = np.zeros((len(near), len(classes)))
        rows = np.arange(len(near))[:, None]
        np.add.at(
            votes,
            (rows, labels.reshape(near.shape)),
            np.exp(near / self.temperature),
        )
        predicted = classes[votes.argmax(axis=1)]
        return {
            "accuracy": float(np.mean(predicted == ranks[self.truth])),
            "k": self.k,
            "temperature": self.temperature,
            "train_size": self.train_size,
            "test_size": len(self.truth),
        }

    def _unit(
        self, name: str, features: Any, labels: Any
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns features of length 1, and labels as class numbers."""
        features, labels = check_features(name, features, labels)
        return unit_rows(features), self.classes.add(labels, f"{name}_labels")


def _largest(rows: np.ndarray, k: int) -> np.ndarray:
    """Returns the columns of the k largest numbers of each row.

    The columns of a long row are grouped: the k largest are in the k groups
    with the largest maxima. This is four times as fast as partitioning all
    columns.
    """
    count, width = rows.shape
    depth = width // GROUPS
    if depth < 4 or k > GROUPS // 4:
        return np.argpartition(rows, -k, axis=1)[:, -k:]
    split = GROUPS * depth
    maxima = rows[:, :split].reshape(count, depth, GROUPS).max(axis=1)
    groups = np.argpartition(maxima, -k, axis=1)[:, -k:]
    members = groups[:, None] + GROUPS * np.arange(depth)[:, None]
    rest = np.broadcast_to(np.arange(split, width), (count, width - split))
    columns = np.concatenate([members.reshape(count, -1), rest], axis=1)
    found = np.take_along_axis(rows, columns, axis=1)
    best = np.argpartition(found, -k, axis=1)[:, -k:]
    return np.take_along_axis(columns, best, axis=1)
