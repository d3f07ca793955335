"""Pictures of nearest neighbors."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kerassl.data import ImageData
from kerassl.evaluation.labels import encode_labels, labels_by_name
from kerassl.visualization.features import (
    class_name,
    encoder_of,
    features_of,
    labeled,
    unit,
)
from kerassl.visualization.figures import (
    RIGHT,
    WRONG,
    head,
    load_matplotlib,
    make_figure,
    show,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def neighbors(
    model: Any,
    queries: Any,
    bank: Any,
    k: int = 5,
    labels: Any = None,
    bank_labels: Any = None,
) -> "Figure":
    """Draws images beside the images whose features are nearest to theirs.

    The picture shows what the encoder considers similar: shapes, colors or
    backgrounds.

    Args:
        model: `SelfSupervisedModel` or an encoder.
        queries: array `(N, H, W, C)` of a few images, uint8 or float in
            [0, 255]; or the result of `kerassl.data.load`, with its labels.
        bank: the images to search, in the same form. They should not contain
            the queries.
        k: int > 0, the number of neighbors.
        labels: array `(N,)` or `(N, 1)`, the labels of the queries: ints,
            bools, whole floats, strings or bytes.
        bank_labels: the labels of the bank, in the same form.

    Returns:
        A `matplotlib.figure.Figure` with one row per query: the query and its
        neighbors, nearest first, under their cosine similarity. If both sides
        have labels, neighbors with the query's label are framed in green, and
        the others in red.

    Raises:
        ImportError: without matplotlib.
        ValueError: if the shape, dtype or range of the images is wrong, the
            bank has fewer than `k` images, the number of labels is wrong, or
            features aren't finite.

    Example:
    ```python
    train = kerassl.data.load("cifar10", "train", limit=10_000)
    test = kerassl.data.load("cifar10", "test", limit=8)
    kerassl.visualization.neighbors(model, test, train).savefig("near.png")
    ```
    """
    load_matplotlib()  # Fails before the features are computed.
    encoder = encoder_of(model)
    asked = labeled("queries", queries, labels)
    searched = labeled("bank", bank, bank_labels)
    check_k(k, len(searched.images))
    return draw_neighbors(
        asked,
        features_of(encoder, "queries", asked),
        searched,
        features_of(encoder, "bank", searched),
        k,
    )


def nearest(
    features: Any, bank: Any, k: int = 5
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the nearest neighbors of features by cosine similarity.

    Args:
        features: float array `(N, D)`.
        bank: float array `(M, D)`, the features to search.
        k: int in [1, M].

    Returns:
        A pair of arrays `(N, k)`: the neighbors' indices in the bank, nearest
        first, and their similarities, in [-1, 1].

    Raises:
        ValueError: if `k` exceeds the size of the bank, the widths differ, or
            features aren't finite.
    """
    features, bank = unit("features", features), unit("bank", bank)
    if features.shape[1] != bank.shape[1]:
        raise ValueError(
            "Features and bank must be of one width. Found: "
            f"{features.shape[1]} and {bank.shape[1]}"
        )
    check_k(k, len(bank))
    similarities = features @ bank.T
    indices = np.argsort(-similarities, axis=1, kind="stable")[:, :k]
    return indices, np.take_along_axis(similarities, indices, axis=1)


def draw_neighbors(
    queries: ImageData,
    features: np.ndarray,
    bank: ImageData,
    bank_features: np.ndarray,
    k: int = 5,
) -> "Figure":
    """Draws the picture of `neighbors` from features computed before."""
    found = list(zip(*nearest(features, bank_features, k)))
    return draw_found(queries, found, bank)


def draw_found(
    queries: ImageData,
    found: Sequence[tuple[np.ndarray, np.ndarray]],
    bank: ImageData,
) -> "Figure":
    """Draws the picture of `neighbors` that were found before.

    Args:
        queries: `ImageData`.
        found: for each query, the indices of its neighbors in the bank and
            their similarities.
        bank: `ImageData`.
    """
    numbers = None
    if queries.labels is not None and bank.labels is not None:
        labels = labels_by_name(queries, bank)
        _, numbers = encode_labels(dict(zip(("queries", "bank"), labels)))
    columns = max(len(indices) for indices, _ in found)
    figure, axes = make_figure(len(found), 1 + columns)
    for i, row in enumerate(axes):
        show(row[0], queries.images[i])
        row[0].set_title(_name(queries, i), fontsize="small", parse_math=False)
        indices, similarities = found[i]
        near = zip(row[1:], indices.tolist(), similarities)
        for axis, index, similarity in near:
            show(axis, bank.images[index])
            name = _name(bank, index)
            axis.set_title(
                f"{name}\n{similarity:.3f}" if name else f"{similarity:.3f}",
                fontsize="small",
                parse_math=False,
            )
            if numbers is not None:
                right = numbers[0][i] == numbers[1][index]
                _frame(axis, RIGHT if right else WRONG)
    if queries.labels is None:
        head(axes[:, :1], ["image"])
    return figure


def check_k(k: int, count: int) -> None:
    """Checks the number of neighbors to find among `count` images.

    Raises:
        ValueError: if it is less than 1, or there are fewer images.
    """
    if not 1 <= k <= count:
        raise ValueError(
            f"`k` must be between 1 and the {count} images of the bank. "
            f"Received: {k}"
        )


def _frame(axis: Any, color: str) -> None:
    axis.set_axis_on()
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set(color=color, linewidth=3)


def _name(data: ImageData, index: int) -> str:
    if data.labels is None:
        return ""
    return class_name(data, data.labels[index])
