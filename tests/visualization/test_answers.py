"""What models are asked for the pictures, and what they say."""

import keras
import numpy as np
import pytest
from keras import ops

from kerassl import visualization
from kerassl.methods.predictive.context_prediction import neighbors
from tests.contracts.methods import METHODS, tiny_encoder


def build(name):
    return METHODS[name](tiny_encoder())


def test_views_are_the_same_each_time_and_leave_the_model_as_it_is(images):
    model = build("jigsaw")
    before = [ops.convert_to_numpy(v) for v in model.variables]
    first = visualization.draw_views(model, images[:5], seed=3)
    again = visualization.draw_views(model, images[:5], seed=3)
    other = visualization.draw_views(model, images[:5], seed=4)
    assert set(first) == {"tiles", "permutation"}
    assert first["tiles"].dtype == np.float32
    assert np.issubdtype(first["permutation"].dtype, np.integer)
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])
    assert np.abs(first["tiles"] - other["tiles"]).max() > 1
    for old, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, ops.convert_to_numpy(variable))


def test_images_are_checked():
    with pytest.raises(ValueError, match="scaled"):
        visualization.draw_views(
            build("rotation"), np.random.rand(2, 28, 28, 1)
        )


def test_rotations_are_asked_one_by_one(images):
    model = build("rotation")
    made = visualization.rotation_answers(model, images[:5])
    turned, predicted = made["turned"], made["predicted"]
    assert turned.shape == (4, 5, 28, 28, 1) and predicted.shape == (4, 5)
    for turn in range(4):
        np.testing.assert_array_equal(
            turned[turn], np.rot90(turned[0], turn, axes=(1, 2))
        )
        logits = model.classifier(model.encoder(turned[turn]))
        np.testing.assert_array_equal(
            ops.convert_to_numpy(logits).argmax(axis=-1), predicted[turn]
        )


def test_a_jigsaw_is_put_back_by_the_guess(images):
    model = build("jigsaw")
    made = visualization.jigsaw_answers(model, images[:6])
    assert made["tiles"].shape[:2] == (6, 9)
    for i in range(6):
        assert made["predicted"][i].tolist() in model.permutations.tolist()
        for place in range(9):
            tile = made["shuffled"][i, place]
            truth, guess = made["order"][i, place], made["predicted"][i, place]
            np.testing.assert_array_equal(tile, made["tiles"][i, truth])
            np.testing.assert_array_equal(tile, made["restored"][i, guess])
    # A right guess restores the tiles: so says the model's own accuracy.
    drawn = visualization.draw_views(model, images[:6])
    accuracy = model.objective(model(drawn))["permutation_accuracy"]
    right = (made["order"] == made["predicted"]).all(axis=1)
    assert float(accuracy) == pytest.approx(right.mean())
    for i in np.flatnonzero(right):
        np.testing.assert_array_equal(made["restored"][i], made["tiles"][i])


def test_positions_are_those_of_the_centers_neighbors(images):
    model = build("context_prediction")
    made = visualization.position_answers(model, images[:4])
    assert made["predicted"].shape == (4, 8)
    drawn = visualization.draw_views(model, images[:4])
    np.testing.assert_array_equal(drawn["tiles"], made["tiles"])
    logits = ops.convert_to_numpy(model(drawn)["logits"])
    first, second, place = neighbors()
    for i, (a, b) in enumerate(zip(first, second)):
        if a == 4:
            np.testing.assert_array_equal(
                logits[:, i].argmax(axis=-1), made["predicted"][:, place[i]]
            )
            assert b == [0, 1, 2, 3, 5, 6, 7, 8][place[i]]


@pytest.mark.parametrize(
    "ask", ["rotation_answers", "jigsaw_answers", "position_answers"]
)
def test_other_models_are_refused(ask, images):
    with pytest.raises(ValueError, match="SimCLR.*pretext"):
        getattr(visualization, ask)(build("simclr"), images[:2])


def test_half_precision(images):
    keras.config.set_dtype_policy("mixed_bfloat16")
    made = visualization.jigsaw_answers(build("jigsaw"), images[:2])
    assert made["tiles"].dtype == np.float32
