"""Statistics of features that need no labels, and show collapse."""

import numpy as np

from kerassl.evaluation.checks import unit_rows

# Rows of the matrix of distances that are computed at once.
BLOCK = 512


def effective_rank(features: np.ndarray) -> float:
    """Computes a soft count of the dimensions that features use (RankMe).

    It is the exponential of the entropy of the normalized singular values: 1
    if all features are on a line, D if they fill all dimensions equally.

    Args:
        features: float array of shape `(N, D)`.

    Returns:
        A float in [1, min(N, D)].

    Raises:
        ValueError: if the shape is wrong, or a feature isn't finite.

    Example:
    ```python
    rank = kerassl.evaluation.effective_rank(model.embed(images))
    ```

    Reference:
        - [Garrido et al., 2022, RankMe](https://arxiv.org/abs/2210.02885)
    """
    values = np.linalg.svd(_checked(features), compute_uv=False)
    shares = values / max(values.sum(), np.finfo("float64").tiny)
    shares = shares[shares > 0]
    return float(np.exp(-np.sum(shares * np.log(shares))))


def feature_spread(features: np.ndarray) -> float:
    """Computes how far features are spread over the sphere.

    It is the standard deviation of the normalized features, averaged over
    dimensions, times the square root of D: 0 if all point in the same
    direction, about 1 if they are spread evenly.

    Args:
        features: float array of shape `(N, D)`.

    Returns:
        A float in [0, 1].

    Raises:
        ValueError: if the shape is wrong, or a feature isn't finite.

    Reference:
        - [Chen and He, 2020, SimSiam](https://arxiv.org/abs/2011.10566), 4.1
    """
    x = on_sphere(features)
    return float(x.std(axis=0).mean() * np.sqrt(x.shape[1]))


def alignment(features_1: np.ndarray, features_2: np.ndarray) -> float:
    """Computes how close the features of two views of an image are.

    It is the mean squared distance between the normalized features of a pair.

    Args:
        features_1: float array of shape `(N, D)`, of one view.
        features_2: float array of shape `(N, D)`, of another view of the same
            images.

    Returns:
        A float in [0, 4]: 0 if both views have the same features, 2 if they
        are unrelated.

    Raises:
        ValueError: if the shapes are wrong, or a feature isn't finite.

    Reference:
        - [Wang and Isola, 2020](https://arxiv.org/abs/2005.10242)
    """
    x, y = on_sphere(features_1), on_sphere(features_2)
    if x.shape != y.shape:
        raise ValueError(
            "Both views need features of the same shape. Received: "
            f"{x.shape} and {y.shape}"
        )
    return float(np.mean(np.sum((x - y) ** 2, axis=1)))


def uniformity(features: np.ndarray, scale: float = 2.0) -> float:
    """Computes how evenly features fill the sphere.

    It is the logarithm of the mean of `exp(-scale * distance ** 2)` over all
    pairs of images, for normalized features.

    Args:
        features: float array of shape `(N, D)`, N >= 2. The cost is quadratic
            in N; a few thousand images are enough.
        scale: float > 0.

    Returns:
        A float in [-4 * scale, 0]: 0 if all are the same; lower values mean a
        more even spread.

    Raises:
        ValueError: if the shape is wrong, or a feature isn't finite.

    Reference:
        - [Wang and Isola, 2020](https://arxiv.org/abs/2005.10242)
    """
    x = on_sphere(features)
    count = len(x)
    if count < 2:
        raise ValueError("Uniformity needs at least two images' features.")
    total = 0.0
    lengths = np.sum(x**2, axis=1)  # 1, or 0 of zeros.
    for start in range(0, count, BLOCK):
        rows = slice(start, start + BLOCK)
        squares = lengths[rows, None] + lengths - 2 * x[rows] @ x.T
        total += np.exp(-scale * np.maximum(squares, 0)).sum()
    # Without the pairs of an image with itself, whose distance is 0.
    return float(np.log(max(total - count, 0.0) / (count * (count - 1))))


def on_sphere(features: np.ndarray) -> np.ndarray:
    """Returns checked features of length 1, in float64."""
    return unit_rows(_checked(features))


def _checked(features: np.ndarray) -> np.ndarray:
    x = np.asarray(features, dtype="float64")
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(
            f"Features must have the shape (N, D). Received: {x.shape}"
        )
    if not np.isfinite(x).all():
        raise ValueError("The features contain NaN or infinite values.")
    return x
