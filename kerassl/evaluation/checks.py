"""Checks of features and labels, and features of length 1."""

from typing import Any

import numpy as np

from kerassl.evaluation.labels import label_array, to_numpy


def check_features(
    name: str, features: Any, labels: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Returns features as float32 `(N, D)` and labels `(N,)`.

    Args:
        name: str, what error messages call the set, such as `"train"`.
        features: float array `(N, D)`.
        labels: array `(N,)`; see `Classes.add`.

    Returns:
        A pair of NumPy arrays.

    Raises:
        ValueError: if labels are missing, shapes don't match, the set is
            empty, or a feature is not finite.
    """
    if labels is None:
        raise ValueError(
            f"The {name} set has no labels, but they are needed. Give a "
            "labeled data set."
        )
    features = to_numpy(features).astype("float32", copy=False)
    labels = label_array(labels, f"{name}_labels")
    if features.ndim != 2 or labels.shape != (len(features),):
        raise ValueError(
            f"The {name} set needs features (N, D) and labels (N,). Received: "
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
    return features, labels


def check_widths(train: np.ndarray, test: np.ndarray) -> None:
    """Checks that training and test features have the same width.

    Raises:
        ValueError: if they don't.
    """
    if train.shape[1] != test.shape[1]:
        raise ValueError(
            "Training and test features must have the same width. Received: "
            f"{train.shape[1]} and {test.shape[1]}."
        )


def unit_rows(features: np.ndarray) -> np.ndarray:
    """Returns features `(N, D)` scaled to length 1. Zeros stay zeros."""
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.maximum(norms, 1e-12)
