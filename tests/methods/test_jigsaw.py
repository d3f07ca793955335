"""What is the jigsaw's own."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

import kerassl
from kerassl.methods.predictive.jigsaw import distances, far_permutations
from tests.backends import examples
from tests.contracts.methods import tiny_encoder


def jigsaw(**kwargs):
    settings = dict(
        num_permutations=6,
        projection_dim=5,
        hidden_dim=7,
        augmenter=kerassl.augmentation.jigsaw(28, view_size=60),
    )
    return kerassl.Jigsaw(tiny_encoder(), **(settings | kwargs))


def tiles_of(images):
    """Nine tiles of each image, without the augmenter."""
    rng = np.random.default_rng(0)
    at = rng.integers(0, 13, (9, 2))
    return np.stack(
        [images[:, y : y + 15, x : x + 15] for y, x in at], axis=1
    ).astype("float32")


@settings(max_examples=examples(8))
@given(count=st.integers(2, 60), seed=st.integers(0, 5))
def test_permutations_are_far_from_each_other(count, seed):
    found = far_permutations(count, seed)
    assert found.shape == (count, 9)
    assert (np.sort(found, axis=1) == np.arange(9)).all()
    smallest, mean = distances(found)
    assert smallest >= 6
    # Those of random permutations: 8 on average.
    assert mean >= 8
    again = far_permutations.__wrapped__(count, seed)
    np.testing.assert_array_equal(found, again)


def test_a_hundred_are_farther_than_the_published_ones():
    # The released file's: at least 2, on average 8.08 (rounded).
    smallest, mean = distances(far_permutations(100))
    assert smallest == 6
    assert mean == pytest.approx(8.08, abs=0.005)


def test_seeds_choose_other_permutations():
    assert (far_permutations(10, 0) != far_permutations(10, 1)).any()


def test_shuffled_features_are_those_of_shuffled_tiles(images):
    model = jigsaw()
    tiles = tiles_of(images[:4])
    index = np.array([0, 3, 5, 3])
    order = model.permutations[index]
    shuffled = np.stack([t[o] for t, o in zip(tiles, order)])
    # Undo the first permutation, which the zeros asked for.
    back = np.argsort(model.permutations[0])
    by_tiles = model(
        {"tiles": shuffled[:, back], "permutation": np.zeros(4, "int32")}
    )["logits"]
    by_features = model({"tiles": tiles, "permutation": index})["logits"]
    np.testing.assert_allclose(
        ops.convert_to_numpy(by_features),
        ops.convert_to_numpy(by_tiles),
        rtol=1e-4,
        atol=1e-5,
    )


def test_an_order_is_drawn_for_each_image_unless_given(images):
    model = jigsaw()
    tiles = {"tiles": tiles_of(images)}
    drawn = [
        ops.convert_to_numpy(model.make_views(tiles)["permutation"])
        for _ in range(2)
    ]
    assert (drawn[0] != drawn[1]).any()
    assert set(drawn[0]) == set(range(6))
    given = np.arange(len(images)) % 6
    made = model.make_views({**tiles, "permutation": given})
    np.testing.assert_array_equal(
        ops.convert_to_numpy(made["permutation"]), given
    )


@pytest.mark.parametrize("permutations", [1, 1001])
def test_bad_numbers_of_permutations_are_refused(permutations):
    with pytest.raises(ValueError, match="between 2 and 1000"):
        jigsaw(num_permutations=permutations)


def test_a_single_image_is_refused(images):
    """Batch normalization makes the classifier's features of it all 0."""
    with pytest.raises(ValueError, match="batch of 1"):
        jigsaw().fit(images[:1], verbose=0)


def test_it_takes_nine_tiles():
    with pytest.raises(ValueError, match="TileAugmenter"):
        jigsaw(augmenter=kerassl.augmentation.crop_flip(28))
    with pytest.raises(ValueError, match="grid of 3"):
        augmenter = kerassl.augmentation.TileAugmenter(
            kerassl.augmentation.View(60), tile_size=15, grid=2
        )
        jigsaw(augmenter=augmenter)
