"""The figures: their axes, titles and what they show; not their pixels."""

import sys

import numpy as np
import pytest

import kerassl
from kerassl import visualization
from kerassl.visualization.figures import RIGHT, WRONG, mosaic
from tests.contracts.methods import METHODS, tiny_encoder


def build(name, shape=(28, 28, 1)):
    return METHODS[name](tiny_encoder(shape))


class Painter:
    """Stands for MAE and the context encoder."""

    def reconstruct(self, images):
        mask = np.zeros((*images.shape[:3], 1), "float32")
        mask[:, 8:16] = 1.0
        images = images.astype("float32")
        return {"input": images, "mask": mask, "reconstruction": images + 400.0}


def color(images):
    return np.repeat(images, 3, axis=-1)


def shown(figure):
    """Returns the arrays of the axes that show an image."""
    return [a.images[0].get_array() for a in figure.axes if a.images]


def titles(figure):
    return [axis.get_title() for axis in figure.axes]


def test_views_beside_their_image(images):
    figure = visualization.views(build("simclr"), images[:3])
    assert len(figure.axes) == 9
    assert titles(figure)[:3] == ["image", "view 1", "view 2"]
    for i, x in enumerate(shown(figure)[::3]):
        np.testing.assert_array_equal(x, images[i, ..., 0])
    assert figure.axes[0].images[0].get_cmap().name == "gray"
    assert figure.axes[0].images[0].get_clim() == (0, 255)


def test_views_in_color_and_of_two_sizes(images):
    figure = visualization.views(build("swav", (28, 28, 3)), color(images[:2]))
    sizes = [x.shape for x in shown(figure)]
    assert sizes == 2 * [(28, 28, 3), (28, 28, 3), (28, 28, 3), (20, 20, 3)]
    assert all(x.dtype == np.uint8 for x in shown(figure))


def test_tiles_are_shown_in_their_grid(images):
    figure = visualization.views(build("jigsaw"), images[:2])
    tile = build("jigsaw").augmenter.tile_size
    between = max(1, tile // 8)
    assert [x.shape[0] for x in shown(figure)] == [
        28,
        3 * tile + 2 * between,
    ] * 2


def test_mosaic():
    tiles = np.arange(9, dtype="float32")[:, None, None, None]
    tiles = np.broadcast_to(tiles, (9, 8, 8, 1))
    made = mosaic(tiles)
    assert made.shape == (26, 26, 1)
    np.testing.assert_array_equal(made[::9, ::9, 0], np.arange(9).reshape(3, 3))
    assert (made[8] == 255).all() and (made[:, 17] == 255).all()


def test_reconstructions_hide_what_the_model_does_not_see(images):
    figure = visualization.reconstructions(Painter(), images[:2])
    seen, painted, truth = shown(figure)[:3]
    assert titles(figure)[:3] == ["visible", "reconstruction", "image"]
    assert (np.abs(seen[8:16] - 127.5) < 1).all()
    np.testing.assert_array_equal(seen[:8], images[0, :8, :, 0])
    assert (painted == 255).all()  # Clipped, not wrapped around.
    np.testing.assert_array_equal(truth, images[0, ..., 0])
    with pytest.raises(ValueError, match="SimCLR doesn.t reconstruct images"):
        visualization.reconstructions(build("simclr"), images[:2])


def test_rotations_say_the_predicted_angle(images):
    model = build("rotation")
    figure = visualization.rotations(model, images[:3])
    said = visualization.rotation_answers(model, images[:3])["predicted"]
    assert len(figure.axes) == 12
    for i, axis in enumerate(figure.axes):
        image, turn = divmod(i, 4)
        right = said[turn, image] == turn
        title = f"{90 * said[turn, image]}°"
        title += "" if right else f", is {90 * turn}°"
        assert axis.get_title() == title
        assert axis.title.get_color() == (RIGHT if right else WRONG)


def test_jigsaws_say_how_many_tiles_are_in_place(images):
    model = build("jigsaw")
    figure = visualization.jigsaw(model, images[:4])
    made = visualization.jigsaw_answers(model, images[:4])
    assert len(figure.axes) == 12
    for i, axis in enumerate(figure.axes[2::3]):
        hits = int((made["order"][i] == made["predicted"][i]).sum())
        word, color = ("right", RIGHT) if hits == 9 else ("wrong", WRONG)
        assert axis.get_title() == f"{word}: {hits} of 9"
        assert axis.title.get_color() == color


def test_positions_have_an_arrow_for_each_neighbor(images):
    model = build("context_prediction")
    figure = visualization.positions(model, images[:5])
    said = visualization.position_answers(model, images[:5])["predicted"]
    assert len(figure.axes) == 8  # Two rows of four, three left empty.
    assert len(shown(figure)) == 5
    for axis, answers in zip(figure.axes, said):
        arrows = [text.arrow_patch for text in axis.texts]
        hits = answers == np.arange(8)
        assert len(arrows) == 8
        assert axis.get_title() == f"{hits.sum()} of 8"
        greens = [a.get_edgecolor()[1] > a.get_edgecolor()[0] for a in arrows]
        assert greens == hits.tolist()
    # The right answers point away from the center, each on its own patch.
    axis, answers = figure.axes[0], said[0]
    middle = axis.images[0].get_array().shape[0] / 2
    for place, text in enumerate(axis.texts):
        head, tail = np.array(text.xy), np.array(text.xyann)
        at = (head + tail) / 2 - middle
        if answers[place] == place:
            assert np.dot(head - tail, at) > 0


@pytest.mark.parametrize("name", ["rotation", "jigsaw", "context_prediction"])
def test_pretext_picks_the_picture(name, images):
    picture = {
        "rotation": visualization.rotations,
        "jigsaw": visualization.jigsaw,
        "context_prediction": visualization.positions,
    }[name]
    model = build(name)
    figure = visualization.pretext(model, images[:2])
    assert titles(figure) == titles(picture(model, images[:2]))


def test_pretext_of_other_models(images):
    figure = visualization.pretext(build("byol"), images[:2])
    assert titles(figure)[0] == "image"
    figure = visualization.pretext(Painter(), images[:2])
    assert titles(figure)[0] == "visible"


@pytest.mark.parametrize("name", ["rotation", "jigsaw", "context_prediction"])
def test_other_models_are_refused(name, images):
    picture = {
        "rotation": visualization.rotations,
        "jigsaw": visualization.jigsaw,
        "context_prediction": visualization.positions,
    }[name]
    with pytest.raises(ValueError, match="SimCLR"):
        picture(build("simclr"), images[:2])


def test_generative_models_have_pictures(images):
    model = kerassl.ContextEncoder(
        kerassl.encoders.build("resnet_nano", (32, 32, 1))
    )
    padded = np.pad(images[:2], ((0, 0), (2, 2), (2, 2), (0, 0)))
    figure = visualization.pretext(model, padded)
    assert titles(figure)[:3] == ["visible", "reconstruction", "image"]


def test_pyplot_knows_nothing_of_the_figures():
    from matplotlib import pyplot

    before = pyplot.get_fignums()
    visualization.reconstructions(Painter(), np.zeros((2, 16, 16, 1), "uint8"))
    assert pyplot.get_fignums() == before


def test_the_error_without_matplotlib(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    images = np.zeros((2, 16, 16, 1), "uint8")
    with pytest.raises(ImportError, match=r'pip install "kerassl\[viz\]"'):
        visualization.reconstructions(Painter(), images)
    with pytest.raises(ImportError, match=r'pip install "kerassl\[viz\]"'):
        kerassl.callbacks.PretextPictures(images, tmp_path)
