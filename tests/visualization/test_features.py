"""Neighbors, maps and correlations: what they show, on real images."""

import sys

import keras
import numpy as np
import pytest
from keras import layers, ops

from kerassl import augmentation, encoders, visualization
from kerassl.data import ImageData
from kerassl.visualization.figures import RIGHT, WRONG
from kerassl.visualization.maps import UNLABELED
from tests.contracts.methods import METHODS, tiny_encoder


@pytest.fixture(scope="module")
def pixels():
    """An encoder whose features are the pixels: what is near is known."""
    inputs = keras.Input((28, 28, 1))
    return encoders.as_encoder(
        keras.Model(inputs, layers.Flatten()(inputs)),
        normalization="included",
    )


@pytest.fixture(scope="module")
def vectors():
    return np.random.default_rng(0).normal(size=(40, 6)).astype("float32")


def shown(figure):
    return [a.images[0].get_array() for a in figure.axes if a.images]


def titles(figure):
    return [axis.get_title() for axis in figure.axes]


def rgb(color):
    from matplotlib.colors import to_rgb

    return to_rgb(color)


# === The numbers ===


def test_nearest_by_a_loop(vectors):
    places, similarities = visualization.nearest(vectors[:5], vectors[5:], k=3)
    for i in range(5):
        cosines = [
            v @ vectors[i] / np.linalg.norm(v) / np.linalg.norm(vectors[i])
            for v in vectors[5:]
        ]
        best = sorted(range(35), key=lambda j: -cosines[j])[:3]
        assert places[i].tolist() == best
        np.testing.assert_allclose(
            similarities[i], [cosines[j] for j in best], rtol=1e-5
        )


@pytest.mark.parametrize(
    "features, bank, k, message",
    [
        ((2, 3), (4, 3), 5, "between 1 and the 4 images.*Received: 5"),
        ((2, 3), (4, 3), 0, "Received: 0"),
        ((2, 3), (4, 2), 1, "one width.*3 and 2"),
        ((2, 3, 1), (4, 3), 1, r"\(N, D\).*\(2, 3, 1\)"),
    ],
)
def test_nearest_refuses(features, bank, k, message):
    with pytest.raises(ValueError, match=message):
        visualization.nearest(np.ones(features), np.ones(bank), k)


def test_features_that_are_not_finite_are_refused(vectors):
    broken = vectors.copy()
    broken[3, 1] = np.nan
    with pytest.raises(ValueError, match="1 of 40 features of `bank`"):
        visualization.nearest(vectors, broken)
    with pytest.raises(ValueError, match="aren't finite"):
        visualization.project(broken)


def test_pca_finds_the_plane_in_which_features_vary():
    rng = np.random.default_rng(1)
    angles = rng.normal(scale=(0.3, 0.1, 0.01), size=(60, 3))
    # Directions around the first axis: the rest are the angles.
    x = np.concatenate([np.ones((60, 1)), angles], axis=1)
    x *= rng.uniform(0.5, 2.0, size=(60, 1))  # Lengths count for nothing.
    made = visualization.project(x)
    assert made.shape == (60, 2) and made.dtype == np.float32
    for i in range(2):
        assert np.corrcoef(made[:, i], angles[:, i])[0, 1] > 0.9
    assert abs(np.corrcoef(made.T)[0, 1]) < 1e-5
    np.testing.assert_array_equal(made, visualization.project(x))


def test_tsne_keeps_groups_together_and_has_a_seed():
    rng = np.random.default_rng(0)
    x = np.repeat(np.eye(2, 8), 12, axis=0) + rng.normal(0, 0.05, (24, 8))
    first = visualization.project(x, "tsne", seed=3)
    np.testing.assert_array_equal(
        first, visualization.project(x, "tsne", seed=3)
    )
    groups = first[:12], first[12:]
    middles = [group.mean(axis=0) for group in groups]
    for group, own, other in zip(groups, middles, middles[::-1]):
        nearer = np.linalg.norm(group - own, axis=1)
        assert (nearer < np.linalg.norm(group - other, axis=1)).all()


def test_umap_gets_the_seed(vectors, monkeypatch):
    class UMAP:
        def __init__(self, **given):
            self.given = given

        def fit_transform(self, x):
            assert self.given["random_state"] == 7
            assert self.given["n_neighbors"] == 15
            np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1, rtol=1e-5)
            return self.given["init"]

    module = type(sys)("umap")
    module.UMAP = UMAP
    monkeypatch.setitem(sys.modules, "umap", module)
    made = visualization.project(vectors, "umap", seed=7)
    np.testing.assert_allclose(made, visualization.project(vectors))


def test_a_missing_package_is_named(vectors, monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(ImportError, match="pip install umap-learn"):
        visualization.project(vectors, "umap")


def test_mistakes_show_before_the_features(pixels, images, monkeypatch):
    monkeypatch.setattr(encoders, "embed", None)
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(ImportError, match="umap-learn"):
        visualization.embedding_map(pixels, images, kind="umap")
    with pytest.raises(ValueError, match="at least 4 images"):
        visualization.embedding_map(pixels, images[:3])
    with pytest.raises(ValueError, match="and the 2 images of the bank"):
        visualization.neighbors(pixels, images, images[:2], k=3)


def test_maps_that_cannot_be_are_refused(vectors, pixels, images):
    with pytest.raises(ValueError, match=r"at least 4.*\(3, 6\)"):
        visualization.project(vectors[:3])
    with pytest.raises(ValueError, match=r"2 dimensions.*\(40, 1\)"):
        visualization.project(vectors[:, :1])
    with pytest.raises(ValueError, match="no kind of map 'tsn'.*tsne"):
        visualization.embedding_map(pixels, images, kind="tsn")


# === Neighbors ===


def test_neighbors_by_pixels(pixels, images):
    flat = images.reshape(64, -1).astype("float32")
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    similarities = flat[:2] @ flat[2:].T
    figure = visualization.neighbors(pixels, images[:2], images[2:], k=3)
    pictures, words = shown(figure), titles(figure)
    assert len(pictures) == 8 and words[0] == "image"
    for i in range(2):
        np.testing.assert_array_equal(pictures[4 * i], images[i, ..., 0])
        best = np.argsort(-similarities[i])[:3]
        for column, j in enumerate(best, start=4 * i + 1):
            np.testing.assert_array_equal(
                pictures[column], images[2 + j, ..., 0]
            )
            assert words[column] == f"{similarities[i, j]:.3f}"


def test_labels_color_the_frames(pixels, images):
    names = ("$a", "b" * 30)
    bank = ImageData(images, np.arange(64) % 2, names)
    queries = ImageData(images[:2], np.array([0, 0]), names)
    figure = visualization.neighbors(pixels, queries, bank, k=1)
    # The nearest of an image is the image itself.
    assert titles(figure) == ["$a", "$a\n1.000", "$a", "b" * 19 + "…\n1.000"]
    for axis, color in zip(figure.axes[1::2], (RIGHT, WRONG)):
        edge = axis.spines["left"].get_edgecolor()
        assert axis.axison and edge[:3] == rgb(color)
    figure.canvas.draw()  # A lone dollar is not a formula.
    # Labels beside arrays are the same; those without a name have a number.
    figure = visualization.neighbors(
        pixels, images[:2], images, 1, [-1, 0], np.arange(64) % 2
    )
    assert titles(figure)[:2] == ["label -1", "label 0\n1.000"]


def test_labels_of_other_dtypes_and_numberings(pixels, images):
    def edges(figure):
        return [axis.spines["left"].get_edgecolor()[:3] for axis in figure.axes]

    draw = visualization.neighbors
    strings = np.array(["cat", "catfish"])[np.arange(64) % 2]
    figure = draw(pixels, images[:2], images, 1, ["cat"] * 2, strings[:, None])
    assert titles(figure) == ["cat", "cat\n1.000", "cat", "catfish\n1.000"]
    assert edges(figure)[1::2] == [rgb(RIGHT), rgb(WRONG)]
    # 300 is 44 in a byte.
    labels = np.full(2, 44, "uint8"), np.full(64, 300)
    figure = draw(pixels, images[:2], images, 1, *labels)
    assert edges(figure)[1::2] == [rgb(WRONG)] * 2
    # Label 0 is another class here and there.
    bank = ImageData(images, np.arange(64) % 2, ("ant", "bee"))
    queries = ImageData(images[:2], np.array([0, 0]), ("bee",))
    figure = draw(pixels, queries, bank, k=1)
    assert titles(figure) == ["bee", "ant\n1.000", "bee", "bee\n1.000"]
    assert edges(figure)[1::2] == [rgb(WRONG), rgb(RIGHT)]
    figure = visualization.embedding_map(pixels, images, strings, thumbnails=0)
    (legend,) = figure.legends
    words = [text.get_text() for text in legend.get_texts()]
    assert words == ["cat", "catfish"]
    with pytest.raises(ValueError, match="one-hot"):
        visualization.embedding_map(pixels, images, np.eye(64))
    with pytest.raises(ValueError, match="'cat' in .* and 1 in .*"):
        draw(pixels, images[:2], images, 1, ["cat"] * 2, [1] * 64)


def test_an_encoder_may_come_in_a_model_and_not_as_a_path(images, tmp_path):
    model = METHODS["simclr"](tiny_encoder())
    draw = visualization.neighbors
    made = [
        titles(draw(source, images[:2], images[2:], k=2))
        for source in (model, model.encoder)
    ]
    assert made[0] == made[1]
    with pytest.raises(ValueError, match=r"`kerassl.load_encoder\('runs/a'"):
        draw("runs/a", images[:2], images[2:])


def test_images_and_labels_are_checked(pixels, images):
    draw = visualization.neighbors
    with pytest.raises(ValueError, match=r"images of shape \(27, 28, 1\)"):
        draw(pixels, images[:2], images[:, 1:])
    with pytest.raises(ValueError, match="`queries` must have the shape"):
        draw(pixels, images[0], images)
    with pytest.raises(ValueError, match="labels of bank.*3 labels for 64"):
        draw(pixels, images[:2], images, bank_labels=[1, 2, 3])
    with pytest.raises(ValueError, match="64 images of the bank.*65"):
        draw(pixels, images[:2], images, k=65)
    with pytest.raises(ValueError, match="labels of images.*2 labels for 64"):
        visualization.embedding_map(pixels, images, [1, 2])


# === Maps ===


def test_a_map_has_a_dot_for_each_image(pixels, images):
    labels = np.arange(64) % 3
    data = ImageData(images, labels, ("one", "two", "$three"))
    figure = visualization.embedding_map(pixels, data, thumbnails=8)
    (axis,) = figure.axes
    dots = axis.collections[-1]
    places = visualization.project(images.reshape(64, -1))
    places -= places.min(axis=0)
    places /= places.max(axis=0)
    np.testing.assert_allclose(dots.get_offsets(), places, atol=1e-5)
    colors = dots.get_facecolors()
    for i in range(64):
        assert (colors[i] == colors[labels[i]]).all()
    assert len(np.unique(colors, axis=0)) == 3
    (legend,) = figure.legends
    words = [text.get_text() for text in legend.get_texts()]
    assert words == ["one", "two", "$three"]
    assert axis.get_title() == "PCA of 64 images"
    figure.canvas.draw()

    # Thumbnails lie at their dots, apart from each other.
    boxes = np.array([x.get_extent() for x in axis.images])
    middles = np.stack([boxes[:, :2].mean(1), boxes[:, 2:].mean(1)], axis=1)
    assert 8 < len(boxes) < 64
    for i, middle in enumerate(middles):
        at = np.abs(places - middle).max(axis=1).argmin()
        np.testing.assert_allclose(middle, places[at], atol=1e-5)
        np.testing.assert_array_equal(
            axis.images[i].get_array(), images[at, ..., 0]
        )
        apart = np.abs(np.delete(middles, i, axis=0) - middle).max(axis=1)
        assert (apart >= 1 / 8).all()


def test_a_map_without_labels_or_thumbnails(pixels, images):
    figure = visualization.embedding_map(pixels, images, thumbnails=0)
    (axis,) = figure.axes
    assert not axis.images and not figure.legends
    assert (
        axis.collections[-1].get_facecolors()[:, :3] == rgb(UNLABELED)
    ).all()


def test_own_labels_are_not_the_classes(pixels, images):
    names = ("airplane", "bird")
    data = ImageData(images, np.arange(64) % 2, names)
    groups = np.arange(64) // 32
    figure = visualization.embedding_map(pixels, data, groups, thumbnails=0)
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words == ["label 0", "label 1"]
    figure = visualization.neighbors(
        pixels, data.take(1), data, 1, groups[:1], groups
    )
    assert titles(figure) == ["label 0", "label 0\n1.000"]


def test_many_classes_have_no_legend(pixels, images):
    figure = visualization.embedding_map(
        pixels, images, np.arange(64) % 30, thumbnails=0
    )
    assert not figure.legends
    colors = figure.axes[0].collections[-1].get_facecolors()
    assert len(np.unique(colors, axis=0)) == 30


# === Barlow Twins' matrix ===


def test_cross_correlation_shows_the_matrix(images):
    # Crops alone: colors would take JAX seconds to compile.
    crop = augmentation.View(28, jitter=0, grayscale=0, blur=0)
    augmenter = augmentation.ViewAugmenter([crop, crop])
    model = METHODS["barlow_twins"](tiny_encoder(), augmenter=augmenter)
    before = [ops.convert_to_numpy(v) for v in model.variables]
    figure = visualization.cross_correlation(model, images, seed=2, dims=5)
    for old, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, ops.convert_to_numpy(variable))
    drawn = visualization.draw_views(model, images, seed=2)
    matrix = model.cross_correlation(drawn)
    picture = figure.axes[0].images[0]
    np.testing.assert_allclose(picture.get_array(), matrix[:5, :5], atol=1e-5)
    assert picture.get_clim() == (-1, 1)
    rest = matrix[~np.eye(16, dtype=bool)]
    assert figure.axes[0].get_title() == (
        f"diagonal: mean {np.diag(matrix).mean():.2f}, the rest: "
        f"RMS {np.sqrt((rest**2).mean()):.2f}"
    )
    with pytest.raises(ValueError, match="at least 2 images.*Received: 1"):
        visualization.cross_correlation(model, images[:1])
    with pytest.raises(ValueError, match="BarlowTwins.*SimCLR"):
        visualization.cross_correlation(
            METHODS["simclr"](tiny_encoder()), images
        )


def test_the_error_without_matplotlib(pixels, images, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'pip install "kerassl\[viz\]"'):
        visualization.neighbors(pixels, images[:2], images)
    with pytest.raises(ImportError, match=r'pip install "kerassl\[viz\]"'):
        visualization.embedding_map(pixels, images)


def test_histogram_of_even_and_of_collapsed_features():
    inputs = keras.Input((4, 4, 1))
    spread = encoders.as_encoder(
        keras.Model(inputs, layers.Flatten()(inputs - 128)),
        normalization="included",
    )
    images = np.random.default_rng(0).integers(0, 256, (200, 4, 4, 1), "uint8")
    figure = visualization.feature_histogram(spread, images)
    values, deviations = figure.axes
    # A density, near to that of the curve in the middle.
    bars = [(b.get_x(), b.get_width(), b.get_height()) for b in values.patches]
    assert sum(w * h for _, w, h in bars) == pytest.approx(1)
    assert min(x for x, _, _ in bars) > -4
    assert sum(b.get_height() for b in deviations.patches) == 16
    assert deviations.get_title() == "mean 1.00"
    constant = keras.Model(inputs, layers.Flatten()(0 * inputs + 3.0))
    figure = visualization.feature_histogram(constant, images)
    assert figure.axes[1].get_title() == "mean 0.00"
