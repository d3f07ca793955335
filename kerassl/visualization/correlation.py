"""The cross-correlation matrix of Barlow Twins."""

from typing import TYPE_CHECKING, Any

import numpy as np

from kerassl import methods
from kerassl.visualization.answers import check_kind, draw_views
from kerassl.visualization.figures import load_matplotlib

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def cross_correlation(
    model: methods.BarlowTwins, images: Any, seed: int = 0, dims: int = 128
) -> "Figure":
    """Draws the matrix that Barlow Twins pushes toward the identity.

    Red on the diagonal: both views agree in that dimension. White elsewhere:
    no dimension repeats another. With N images even independent dimensions
    correlate by about `1 / sqrt(N)`.

    Args:
        model: `kerassl.BarlowTwins`.
        images: array `(N, H, W, C)` of some hundred images, uint8 or float in
            [0, 255].
        seed: int, the seed of the views.
        dims: int > 0, the number of dimensions to draw, from the first.

    Returns:
        A `matplotlib.figure.Figure`. Its title gives the mean of the whole
        diagonal, and the root mean square of all other entries.

    Raises:
        ImportError: without matplotlib.
        ValueError: if the model is not a `BarlowTwins`, the shape, dtype or
            range of the images is wrong, or there are fewer than 2.

    Reference:
        - [Zbontar et al., 2021](https://arxiv.org/abs/2103.03230)
    """
    check_kind(model, methods.BarlowTwins)
    figure = load_matplotlib()(figsize=(5, 4.4), layout="constrained")
    drawn = draw_views(model, images, seed)
    if len(images) < 2:
        raise ValueError(
            "A correlation needs at least 2 images, better hundreds. "
            f"Received: {len(images)}"
        )
    matrix = model.cross_correlation(drawn)
    diagonal = np.diag(matrix)
    others = np.square(matrix, dtype="float64").sum() - diagonal @ diagonal
    pairs = max(matrix.size - len(matrix), 1)
    axis = figure.subplots()
    picture = axis.imshow(matrix[:dims, :dims], cmap="RdBu_r", vmin=-1, vmax=1)
    figure.colorbar(picture, label="correlation", shrink=0.8)
    axis.set(xlabel="dimension of view 2", ylabel="dimension of view 1")
    axis.set_title(
        f"diagonal: mean {diagonal.mean():.2f}, the rest: "
        f"RMS {np.sqrt(max(others, 0) / pairs):.2f}",
        fontsize="small",
    )
    return figure
