"""Is it collapse? What features say without labels."""

import numpy as np


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

    It is the standard deviation of the normalised features, as a mean over
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
    x = _checked(features)
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    x = x / np.maximum(norms, np.finfo("float64").tiny)
    return float(x.std(axis=0).mean() * np.sqrt(x.shape[1]))


def _checked(features: np.ndarray) -> np.ndarray:
    x = np.asarray(features, dtype="float64")
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(
            f"Features must have the shape (N, D). Received: {x.shape}"
        )
    if not np.isfinite(x).all():
        raise ValueError("The features hold NaN or infinite values.")
    return x
