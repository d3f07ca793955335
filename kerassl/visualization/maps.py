"""Maps on which images with similar features are close together."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from kerassl.choices import check_choice
from kerassl.data import ImageData
from kerassl.visualization.features import (
    class_name,
    encoder_of,
    features_of,
    labeled,
    unit,
)
from kerassl.visualization.figures import load_matplotlib, show

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The display name of each kind of map.
MAPS = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}
# The smallest number of images on a map.
FEWEST = 4
# With more classes the colors can't be told apart, so there is no legend.
NAMED_CLASSES = 20
# The number of characters that fit on a line of the legend.
LETTERS = 75
UNLABELED = "tab:gray"


def embedding_map(
    model: Any,
    images: Any,
    labels: Any = None,
    kind: str = "pca",
    seed: int = 0,
    thumbnails: int = 16,
) -> "Figure":
    """Draws images on a map on which similar features are close together.

    Args:
        model: `SelfSupervisedModel` or an encoder.
        images: array `(N, H, W, C)` of some hundred images, uint8 or float in
            [0, 255]; or the result of `kerassl.data.load`, with its labels
            and class names.
        labels: array `(N,)` or `(N, 1)` of ints, bools, whole floats, strings
            or bytes. They set the colors; positions don't depend on them.
        kind: str: `"pca"`, `"tsne"` or `"umap"`, as in `project`.
        seed: int, the seed of t-SNE and UMAP.
        thumbnails: int >= 0. A thumbnail is 1 / `thumbnails` of the map wide.
            Every image is a dot, and as many images as fit without overlap
            are drawn as thumbnails; 0 draws none.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ImportError: without matplotlib, or umap-learn for `"umap"`.
        ValueError: if the shape, dtype or range of the images is wrong, there
            are fewer than 4, the number of labels is wrong, features aren't
            finite, or `kind` is unknown.

    Example:
    ```python
    test = kerassl.data.load("cifar10", "test", limit=1000)
    kerassl.visualization.embedding_map(model, test, kind="tsne")
    ```
    """
    load_matplotlib()
    check_choice("kind of map", kind, MAPS)
    data = labeled("images", images, labels)
    if len(data.images) < FEWEST:
        raise ValueError(
            f"A map needs at least {FEWEST} images. Received: "
            f"{len(data.images)}"
        )
    if kind == "umap":
        _load_umap()  # Fails before the features are computed.
    features = features_of(encoder_of(model), "images", data)
    return draw_map(data, features, kind, seed, thumbnails)


def project(features: Any, kind: str = "pca", seed: int = 0) -> np.ndarray:
    """Projects features to two dimensions.

    Features are first scaled to length 1, so that only their directions
    count, as in kNN.

    Args:
        features: float array `(N, D)`.
        kind: str. `"pca"` projects to the two directions of largest variance
            and preserves distances; `"tsne"` and `"umap"` (by umap-learn)
            preserve neighborhoods, and distances between groups mean little.
        seed: int, the seed of t-SNE and UMAP.

    Returns:
        A float32 array `(N, 2)`.

    Raises:
        ImportError: without umap-learn for `"umap"`.
        ValueError: if there are fewer than 4 features or fewer than 2
            dimensions, features aren't finite, or `kind` is unknown.

    Reference:
        - [van der Maaten and Hinton, 2008, t-SNE](https://jmlr.org/papers/v9/vandermaaten08a.html)
        - [McInnes et al., 2018, UMAP](https://arxiv.org/abs/1802.03426)
    """  # noqa: E501
    check_choice("kind of map", kind, MAPS)
    x = unit("features", features)
    if len(x) < FEWEST or x.shape[1] < 2:
        raise ValueError(
            f"A map needs at least {FEWEST} features of at least 2 dimensions. "
            f"Received: {x.shape}"
        )
    return np.asarray(PROJECTIONS[kind](x, seed), "float32")


def _pca(x: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.decomposition import PCA

    # Not the randomized solver, which large inputs would get.
    return PCA(2, svd_solver="full").fit_transform(x)


def _tsne(x: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.manifold import TSNE

    # It must be less than the number of images.
    perplexity = min(30.0, (len(x) - 1) / 3)
    return TSNE(perplexity=perplexity, random_state=seed).fit_transform(x)


def _load_umap() -> Any:
    """Imports UMAP; raises ImportError if umap-learn is missing."""
    try:
        from umap import UMAP
    except ImportError as error:
        raise ImportError(
            "UMAP needs umap-learn. Install it with: pip install umap-learn"
        ) from error
    return UMAP


def _umap(x: np.ndarray, seed: int) -> np.ndarray:
    umap = _load_umap()(
        n_neighbors=min(15, len(x) - 1),
        init=_pca(x, seed),  # The default fails on few images.
        random_state=seed,
        n_jobs=1,  # UMAP warns if a seed comes with more jobs.
    )
    return umap.fit_transform(x)


PROJECTIONS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "pca": _pca,
    "tsne": _tsne,
    "umap": _umap,
}


def draw_map(
    data: ImageData,
    features: np.ndarray,
    kind: str = "pca",
    seed: int = 0,
    thumbnails: int = 16,
) -> "Figure":
    """Draws the picture of `embedding_map` from features computed before."""
    points = project(features, kind, seed)
    low, high = points.min(axis=0), points.max(axis=0)
    points = (points - low) / np.maximum(high - low, 1e-12)
    figure = load_matplotlib()(figsize=(5.5, 5.5), layout="constrained")
    axis = figure.subplots()
    colors = _colors(data, axis)
    axis.scatter(*points.T, s=12, c=colors, linewidths=0)
    if thumbnails:
        _draw_thumbnails(axis, data, points, colors, 1 / thumbnails)
    axis.set(xticks=[], yticks=[], aspect="equal")
    axis.set_xlim(-0.05, 1.05)
    axis.set_ylim(-0.05, 1.05)
    axis.set_title(f"{MAPS[kind]} of {len(points):,} images", fontsize="small")
    _, names = axis.get_legend_handles_labels()
    if names:
        legend = figure.legend(
            loc="outside lower center",
            ncols=max(1, LETTERS // (4 + max(map(len, names)))),
            fontsize="small",
            frameon=False,
            handletextpad=0.2,
        )
        for text in legend.get_texts():
            text.set_parse_math(False)
    return figure


def _draw_thumbnails(
    axis: Any, data: ImageData, points: np.ndarray, colors: list, size: float
) -> None:
    from matplotlib.patches import Rectangle

    height, width, _ = data.image_shape
    box = size * np.array([width, height]) / max(width, height)
    taken = np.empty((0, 2))
    for i, point in enumerate(points):
        if (np.abs(taken - point) < 1.1 * box).all(axis=1).any():
            continue
        taken = np.concatenate([taken, point[None]])
        (left, bottom), (right, top) = point - box / 2, point + box / 2
        show(axis, data.images[i], extent=(left, right, bottom, top), zorder=2)
        frame = Rectangle(
            (left, bottom), *box, fill=False, edgecolor=colors[i], lw=1.5
        )
        axis.add_patch(frame)
    axis.set_axis_on()


def _colors(data: ImageData, axis: Any) -> list:
    """Returns a color per image, and adds the legend's entries to the axes."""
    from matplotlib import colormaps

    if data.labels is None:
        return [UNLABELED] * len(data.images)
    classes, numbers = np.unique(data.labels, return_inverse=True)
    if len(classes) > NAMED_CLASSES:
        palette = colormaps["turbo"](np.linspace(0, 1, len(classes)))
    else:
        # Integers index a listed colormap.
        listed = colormaps["tab10" if len(classes) <= 10 else "tab20"]
        palette = listed(np.arange(len(classes)))
        for label, color in zip(classes, palette):
            name = class_name(data, label)
            axis.scatter([], [], color=[color], label=name)
    return [palette[number] for number in numbers]
