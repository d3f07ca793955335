"""Is it collapse? What features say without labels."""

import numpy as np

# Rows of a matrix of distances at once.
BLOCK = 512


def effective_rank(features: np.ndarray) -> float:
    """Computes how many dimensions features use, softly counted (RankMe).

    It is the exponential of the entropy of the singular values, taken as
    shares: 1 if all features lie on a line, D if they fill all dimensions
    equally.

    Args:
        features: float array of shape `(N, D)`.

    Returns:
        A float in [1, min(N, D)].

    Raises:
        ValueError: if the shape is another, or a feature isn't finite.

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

    It is the standard deviation of the normalized features, as a mean over
    dimensions, times the root of D: 0 if all point the same way, about 1 if
    they are spread evenly.

    Args:
        features: float array of shape `(N, D)`.

    Returns:
        A float in [0, 1].

    Raises:
        ValueError: if the shape is another, or a feature isn't finite.

    Reference:
        - [Chen and He, 2020, SimSiam](https://arxiv.org/abs/2011.10566), 4.1
    """
    x = _on_sphere(features)
    return float(x.std(axis=0).mean() * np.sqrt(x.shape[1]))


def alignment(features_1: np.ndarray, features_2: np.ndarray) -> float:
    """Computes how near the features of two views of an image are.

    It is the mean squared distance of the normalized features of each pair.

    Args:
        features_1: float array of shape `(N, D)`.
        features_2: float array of shape `(N, D)`; row `i` is of the same image.

    Returns:
        A float in [0, 4]: 0 if views make no difference, 2 if they have nothing
        in common.

    Raises:
        ValueError: if the shapes are others, or a feature isn't finite.

    Reference:
        - [Wang and Isola, 2020](https://arxiv.org/abs/2005.10242)
    """
    x, y = _on_sphere(features_1), _on_sphere(features_2)
    if x.shape != y.shape:
        raise ValueError(
            "Both views need features of one shape. Received: "
            f"{x.shape} and {y.shape}"
        )
    return float(np.mean(np.sum((x - y) ** 2, axis=1)))


def uniformity(features: np.ndarray, scale: float = 2.0) -> float:
    """Computes how evenly features fill the sphere.

    It is the logarithm of the mean of `exp(-scale * distance ** 2)` over all
    pairs of different images, of normalized features.

    Args:
        features: float array of shape `(N, D)`, N >= 2. Pairs are N squared:
            some thousand images are enough.
        scale: float > 0.

    Returns:
        A float in [-4 * scale, 0]: 0 if all are the same; the lower, the more
        evenly they are spread.

    Raises:
        ValueError: if the shape is another, or a feature isn't finite.

    Reference:
        - [Wang and Isola, 2020](https://arxiv.org/abs/2005.10242)
    """
    x = _on_sphere(features)
    count = len(x)
    if count < 2:
        raise ValueError("Uniformity needs at least two images' features.")
    total = 0.0
    for start in range(0, count, BLOCK):
        # Of unit vectors the squared distance is 2 - 2 times the product.
        squares = 2 - 2 * x[start : start + BLOCK] @ x.T
        total += np.exp(-scale * np.maximum(squares, 0)).sum()
    # Without each image and itself, whose distance is 0.
    return float(np.log(max(total - count, 0.0) / (count * (count - 1))))


def _on_sphere(features: np.ndarray) -> np.ndarray:
    x = _checked(features)
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.maximum(norms, np.finfo("float64").tiny)


def _checked(features: np.ndarray) -> np.ndarray:
    x = np.asarray(features, dtype="float64")
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(
            f"Features must have the shape (N, D). Received: {x.shape}"
        )
    if not np.isfinite(x).all():
        raise ValueError("The features hold NaN or infinite values.")
    return x
