"""Pictures of features: neighbors, maps and correlations."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from kerassl import encoders, methods
from kerassl.choices import check_choice
from kerassl.data import ImageData, check_images
from kerassl.data.folder import ImageFolder
from kerassl.evaluation.labels import (
    encode_labels,
    label_array,
    labels_by_name,
)
from kerassl.presets import load_encoder
from kerassl.visualization.answers import check_kind, draw_views
from kerassl.visualization.pictures import (
    RIGHT,
    WRONG,
    head,
    load_matplotlib,
    make_figure,
    plain,
    show,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Projection = Callable[[np.ndarray, int], np.ndarray]
# How each kind of map is called.
MAPS = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}
# Fewer points make no map.
FEWEST = 4
# More classes have no legend: their colors couldn't be told apart.
NAMED_CLASSES = 20
# So many fit side by side below a map.
LETTERS = 75
UNLABELLED = "tab:gray"


def neighbors(
    model: Any,
    queries: Any,
    bank: Any,
    k: int = 5,
    labels: Any = None,
    bank_labels: Any = None,
) -> "Figure":
    """Draws images beside those whose features are nearest to theirs.

    It shows what the encoder takes for alike: shapes, colors or backgrounds.

    Args:
        model: `SelfSupervisedModel`, an encoder, or what
            `kerassl.load_encoder` takes.
        queries: array `(N, H, W, C)`, uint8 or float in [0, 255], a few; or
            what `kerassl.data.load` returns, with its labels.
        bank: likewise, the images to search, other ones than the queries.
        k: int > 0, the number of neighbors.
        labels: array `(N,)` or `(N, 1)`, of the queries: ints, bools, whole
            floats, strings or bytes.
        bank_labels: likewise, of the bank.

    Returns:
        A `matplotlib.figure.Figure`: a row for each query, of it and its
        neighbors, the nearest first, with the cosine similarity above. With
        labels on both sides a neighbor of the same label has a green frame,
        and another a red one.

    Raises:
        ImportError: without matplotlib.
        ValueError: if images have another shape, type or range, there are
            fewer in the bank than `k`, labels are of another length, or
            features aren't finite.

    Example:
    ```python
    train = kerassl.data.load("cifar10", "train", limit=10_000)
    test = kerassl.data.load("cifar10", "test", limit=8)
    kerassl.visualization.neighbors(model, test, train).savefig("near.png")
    ```
    """
    load_matplotlib()  # Its lack shows now, and not after the features.
    encoder = encoder_of(model)
    asked = labeled("queries", queries, labels)
    searched = labeled("bank", bank, bank_labels)
    count = len(searched.images)
    if not 1 <= k <= count:
        raise ValueError(
            f"`k` must be between 1 and the {count} images of the bank. "
            f"Received: {k}"
        )
    return draw_neighbors(
        asked,
        features_of(encoder, "queries", asked),
        searched,
        features_of(encoder, "bank", searched),
        k,
    )


def embedding_map(
    model: Any,
    images: Any,
    labels: Any = None,
    kind: str = "pca",
    seed: int = 0,
    thumbnails: int = 16,
) -> "Figure":
    """Draws images on a map on which like features lie close together.

    Args:
        model: `SelfSupervisedModel`, an encoder, or what
            `kerassl.load_encoder` takes.
        images: array `(N, H, W, C)`, uint8 or float in [0, 255], some
            hundreds; or what `kerassl.data.load` returns, with its labels and
            the names of its classes.
        labels: array `(N,)` or `(N, 1)`, for the colors: ints, bools, whole
            floats, strings or bytes. No map is made by them.
        kind: str, as in `project`.
        seed: int, likewise.
        thumbnails: int >= 0. An image takes one part in so many of the map's
            width. The first ones that fit are drawn, and all have a dot; with
            0 there are dots alone.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ImportError: without matplotlib, or the package of the map's kind.
        ValueError: if the images have another shape, type or range, there are
            less than 4, labels are of another length, features aren't finite,
            or there is no such kind.

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
    PROJECTIONS[kind]()
    features = features_of(encoder_of(model), "images", data)
    return draw_map(data, features, kind, seed, thumbnails)


def feature_histogram(model: Any, images: Any, bins: int = 60) -> "Figure":
    """Draws how the values of features are spread, beside a normal curve.

    Each feature is brought to length 1 and multiplied by `sqrt(D)`: spread
    evenly over the sphere, its values would follow the curve. In a collapse
    they stand in a few narrow bars. Features after a ReLU have none below zero.

    Args:
        model: `SelfSupervisedModel`, an encoder, or what
            `kerassl.load_encoder` takes.
        images: array `(N, H, W, C)`, uint8 or float in [0, 255], hundreds; or
            what `kerassl.data.load` returns.
        bins: int > 0.

    Returns:
        A `matplotlib.figure.Figure` of two histograms: of all values, and of
        each dimension's standard deviation over the images.

    Raises:
        ImportError: without matplotlib.
        ValueError: if the images have another shape, type or range, or features
            aren't finite.

    Reference:
        - [Chen and He, 2020, SimSiam](https://arxiv.org/abs/2011.10566), of
          the standard deviation against `1 / sqrt(D)`
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
    single.set(xlabel="its standard deviation", ylabel="dimensions")
    single.set_xlim(left=0)
    single.set_title(f"mean {deviations.mean():.2f}", fontsize="small")
    return figure


def cross_correlation(
    model: methods.BarlowTwins, images: Any, seed: int = 0, dims: int = 128
) -> "Figure":
    """Draws the matrix that Barlow Twins brings near the identity.

    Red on the diagonal: both views agree in that dimension. White elsewhere: no
    dimension repeats another. With N images even independent dimensions
    correlate by about `1 / sqrt(N)`.

    Args:
        model: `kerassl.BarlowTwins`.
        images: array `(N, H, W, C)`, uint8 or float in [0, 255], hundreds.
        seed: int, of the views.
        dims: int > 0. Draws so many dimensions at most, the first ones.

    Returns:
        A `matplotlib.figure.Figure`. Its title has the mean of the whole
        diagonal, and the root mean square of all the rest.

    Raises:
        ImportError: without matplotlib.
        ValueError: if the model is another, or the images have another shape,
            type or range, or are less than 2.

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


# === The numbers behind the pictures ===


def nearest(
    features: Any, bank: Any, k: int = 5
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the nearest of a bank of features, by cosine similarity.

    Args:
        features: float array `(N, D)`.
        bank: float array `(M, D)`.
        k: int in [1, M].

    Returns:
        A pair of arrays `(N, k)`: the places in the bank, the nearest first,
        and the similarities, in [-1, 1].

    Raises:
        ValueError: if `k` exceeds the bank, widths differ, or features aren't
            finite.
    """
    features, bank = unit("features", features), unit("bank", bank)
    if features.shape[1] != bank.shape[1]:
        raise ValueError(
            "Features and bank must be of one width. Found: "
            f"{features.shape[1]} and {bank.shape[1]}"
        )
    if not 1 <= k <= len(bank):
        raise ValueError(
            f"`k` must be between 1 and the {len(bank)} images of the bank. "
            f"Received: {k}"
        )
    similarities = features @ bank.T
    places = np.argsort(-similarities, axis=1, kind="stable")[:, :k]
    return places, np.take_along_axis(similarities, places, axis=1)


def project(features: Any, kind: str = "pca", seed: int = 0) -> np.ndarray:
    """Lays features out on a plane.

    Their directions are, as kNN compares them: each is first brought to length
    1.

    Args:
        features: float array `(N, D)`.
        kind: str. `"pca"` shows the two directions in which features vary
            most, and keeps distances as they are; `"tsne"` (scikit-learn) and
            `"umap"` (umap-learn) keep neighbors together, and distances
            between groups mean little.
        seed: int, of t-SNE and UMAP.

    Returns:
        A float32 array `(N, 2)`.

    Raises:
        ImportError: without the package of that kind.
        ValueError: if there are less than 4 features, or of less than 2
            dimensions, they aren't finite, or there is no such kind.

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
    return np.asarray(PROJECTIONS[kind]()(x, seed), "float32")


def _pca(x: np.ndarray, seed: int) -> np.ndarray:
    x = x - x.mean(axis=0)
    _, _, axes = np.linalg.svd(x, full_matrices=False)
    axes = axes[:2]
    # An axis and its reverse are as good: the largest weight is positive.
    largest = np.abs(axes).argmax(axis=1)[:, None]
    return x @ (axes * np.sign(np.take_along_axis(axes, largest, axis=1))).T


def _tsne() -> Projection:
    """Returns t-SNE's; its package's lack shows here."""
    try:
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise ImportError(
            "t-SNE needs scikit-learn. Install it with: "
            "pip install scikit-learn"
        ) from error

    def project(x: np.ndarray, seed: int) -> np.ndarray:
        # It must be less than the number of images.
        perplexity = min(30.0, (len(x) - 1) / 3)
        return TSNE(perplexity=perplexity, random_state=seed).fit_transform(x)

    return project


def _umap() -> Projection:
    """Returns UMAP's; its package's lack shows here."""
    try:
        from umap import UMAP
    except ImportError as error:
        raise ImportError(
            "UMAP needs umap-learn. Install it with: pip install umap-learn"
        ) from error

    def project(x: np.ndarray, seed: int) -> np.ndarray:
        return UMAP(
            n_neighbors=min(15, len(x) - 1),
            init=_pca(x, seed),  # Its own fails on few images.
            random_state=seed,
            n_jobs=1,  # What a seed asks for; UMAP would warn.
        ).fit_transform(x)

    return project


# Each kind's loads its package, and returns what lays features out.
PROJECTIONS: dict[str, Callable[[], Projection]] = {
    "pca": lambda: _pca,
    "tsne": _tsne,
    "umap": _umap,
}


# === Drawing ===


def draw_neighbors(
    queries: ImageData,
    features: np.ndarray,
    bank: ImageData,
    bank_features: np.ndarray,
    k: int = 5,
) -> "Figure":
    """Draws what `neighbors` draws, of features that are there already."""
    places, similarities = nearest(features, bank_features, k)
    numbers = None
    if queries.labels is not None and bank.labels is not None:
        labels = labels_by_name(queries, bank)
        _, numbers = encode_labels(dict(zip(("queries", "bank"), labels)))
    figure, axes = make_figure(len(places), 1 + k)
    for i, row in enumerate(axes):
        show(row[0], queries.images[i])
        row[0].set_title(_name(queries, i), fontsize="small", parse_math=False)
        shown = zip(row[1:], places[i].tolist(), similarities[i])
        for axis, place, similarity in shown:
            show(axis, bank.images[place])
            name = _name(bank, place)
            axis.set_title(
                f"{name}\n{similarity:.3f}" if name else f"{similarity:.3f}",
                fontsize="small",
                parse_math=False,
            )
            if numbers is not None:
                right = numbers[0][i] == numbers[1][place]
                _frame(axis, RIGHT if right else WRONG)
    if queries.labels is None:
        head(axes[:, :1], ["image"])
    return figure


def draw_map(
    data: ImageData,
    features: np.ndarray,
    kind: str = "pca",
    seed: int = 0,
    thumbnails: int = 16,
) -> "Figure":
    """Draws what `embedding_map` draws, of features that are there already."""
    places = project(features, kind, seed)
    low, high = places.min(axis=0), places.max(axis=0)
    places = (places - low) / np.maximum(high - low, 1e-12)
    figure = load_matplotlib()(figsize=(5.5, 5.5), layout="constrained")
    axis = figure.subplots()
    colors = _colors(data, axis)
    axis.scatter(*places.T, s=12, c=colors, linewidths=0)
    if thumbnails:
        _draw_thumbnails(axis, data, places, colors, 1 / thumbnails)
    axis.set(xticks=[], yticks=[], aspect="equal")
    axis.set_xlim(-0.05, 1.05)
    axis.set_ylim(-0.05, 1.05)
    axis.set_title(f"{MAPS[kind]} of {len(places):,} images", fontsize="small")
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
    axis: Any, data: ImageData, places: np.ndarray, colors: list, size: float
) -> None:
    from matplotlib.patches import Rectangle

    height, width, _ = data.image_shape
    box = size * np.array([width, height]) / max(width, height)
    taken = np.empty((0, 2))
    for i, place in enumerate(places):
        if (np.abs(taken - place) < 1.1 * box).all(axis=1).any():
            continue
        taken = np.concatenate([taken, place[None]])
        (left, bottom), (right, top) = place - box / 2, place + box / 2
        show(axis, data.images[i], extent=(left, right, bottom, top), zorder=2)
        frame = Rectangle(
            (left, bottom), *box, fill=False, edgecolor=colors[i], lw=1.5
        )
        axis.add_patch(frame)
    axis.set_axis_on()


def _colors(data: ImageData, axis: Any) -> list:
    """Returns a color for each image, and gives the axes a legend of them."""
    from matplotlib import colormaps

    if data.labels is None:
        return [UNLABELLED] * len(data.images)
    classes, numbers = np.unique(data.labels, return_inverse=True)
    if len(classes) > NAMED_CLASSES:
        palette = colormaps["turbo"](np.linspace(0, 1, len(classes)))
    else:
        # Of a listed map, whole numbers are places in the list.
        listed = colormaps["tab10" if len(classes) <= 10 else "tab20"]
        palette = listed(np.arange(len(classes)))
        for label, color in zip(classes, palette):
            name = _class_name(data, label)
            axis.scatter([], [], color=[color], label=name)
    return [palette[number] for number in numbers]


def _frame(axis: Any, color: str) -> None:
    axis.set_axis_on()
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set(color=color, linewidth=3)


def _name(data: ImageData, place: int) -> str:
    if data.labels is None:
        return ""
    return _class_name(data, data.labels[place])


def _class_name(data: ImageData, label: int | str) -> str:
    if isinstance(label, str):
        return plain(label)
    # Some data sets mark with -1 what has no class.
    if data.class_names is None or not 0 <= label < len(data.class_names):
        return f"label {label}"
    return plain(data.class_names[label])


# === What is given ===


def encoder_of(model: Any) -> keras.Model:
    """Returns the encoder of a model, or of what `load_encoder` takes."""
    if isinstance(model, (str, Path)):
        return load_encoder(model)
    return encoders.as_encoder(getattr(model, "encoder", model))


def labeled(name: str, images: Any, labels: Any = None) -> ImageData:
    """Returns images with their labels, if there are any.

    Args:
        name: str, what errors call the images.
        images: array `(N, H, W, C)`, or `ImageData`.
        labels: array `(N,)` or `(N, 1)`, as `kerassl.evaluation.knn` takes
            them; by default those of `ImageData`.

    Raises:
        ValueError: if the images have another shape, type or range, or the
            labels another length.
    """
    if not isinstance(images, ImageData):
        check_images(images, name)
        if not isinstance(images, ImageFolder):
            images = ops.convert_to_numpy(images)
        images = ImageData(images)
    labels = images.labels if labels is None else labels
    if labels is not None:
        what = f"labels of {name}"
        labels = label_array(labels, what, len(images.images))
        classes, (numbers,) = encode_labels({what: labels})
        fit = all(isinstance(c, int) and abs(c) < 2**63 for c in classes)
        values = np.array(classes, "int64" if fit else "object")
        images = dataclasses.replace(images, labels=values[numbers])
    return images


def features_of(encoder: keras.Model, name: str, data: ImageData) -> np.ndarray:
    """Returns the features of images.

    Raises:
        ValueError: if the encoder takes images of another shape, or the
            features aren't finite.
    """
    check_fit(encoder, name, data)
    # Without labels, which may be strings.
    features = encoders.embed(encoder, dataclasses.replace(data, labels=None))
    unit(name, features)
    return features


def check_fit(encoder: keras.Model, name: str, data: ImageData) -> None:
    """Refuses images of another shape than an encoder takes.

    Raises:
        ValueError: naming both shapes.
    """
    needed = encoder.input_shape[1:]
    if any(n not in (None, m) for n, m in zip(needed, data.image_shape)):
        raise ValueError(
            f"The encoder takes images of shape {needed}, and `{name}` are of "
            f"shape {data.image_shape}."
        )


def unit(name: str, features: Any) -> np.ndarray:
    """Returns features of length 1.

    Raises:
        ValueError: if the shape is another, or features aren't finite.
    """
    x = np.asarray(features, "float32")
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(
            f"Features must have the shape (N, D). Received: {x.shape}"
        )
    finite = np.isfinite(x).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"{np.sum(~finite)} of {len(x)} features of `{name}` aren't "
            "finite: the encoder's weights are NaN or infinite."
        )
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.maximum(norms, 1e-12)
