"""Histograms of features."""

from typing import TYPE_CHECKING, Any

import numpy as np

from kerassl.visualization.features import (
    encoder_of,
    features_of,
    labeled,
    unit,
)
from kerassl.visualization.figures import load_matplotlib

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def feature_histogram(model: Any, images: Any, bins: int = 60) -> "Figure":
    """Draws the distribution of feature values beside a normal curve.

    Each feature is scaled to length 1 and multiplied by `sqrt(D)`. The values
    of features that are spread evenly over the sphere follow the curve; after
    a collapse they fill only a few bars. Features after a ReLU are never
    negative.

    Args:
        model: `SelfSupervisedModel` or an encoder.
        images: array `(N, H, W, C)` of some hundred images, uint8 or float in
            [0, 255]; or the result of `kerassl.data.load`.
        bins: int > 0.

    Returns:
        A `matplotlib.figure.Figure` of two histograms: of all values, and of
        each dimension's standard deviation over the images.

    Raises:
        ImportError: without matplotlib.
        ValueError: if the shape, dtype or range of the images is wrong, or
            features aren't finite.

    Reference:
        - [Chen and He, 2020, SimSiam](https://arxiv.org/abs/2011.10566), which
          compares the standard deviation with `1 / sqrt(D)`
    """
    figure = load_matplotlib()(figsize=(7, 3), layout="constrained")
    features = features_of(
        encoder_of(model), "images", labeled("images", images)
    )
    values = unit("images", features) * np.sqrt(features.shape[1])
    both, single = figure.subplots(1, 2)
    _, edges, _ = both.hist(values.ravel(), bins=bins, density=True)
    normal = np.exp(-np.square(edges) / 2) / np.sqrt(2 * np.pi)
    both.plot(edges, normal, color="black", label="evenly spread")
    both.legend(frameon=False, fontsize="small")
    both.set(xlabel="value of a normalized feature x $\\sqrt{D}$", yticks=[])
    deviations = values.std(axis=0)
    single.hist(deviations, bins=bins)
    single.axvline(1, color="black")
    single.set(xlabel="standard deviation", ylabel="dimensions")
    single.set_xlim(left=0)
    single.set_title(f"mean {deviations.mean():.2f}", fontsize="small")
    return figure
