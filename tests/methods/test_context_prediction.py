"""What is context prediction's own."""

import numpy as np
import pytest
from keras import ops

import kerassl
from kerassl.methods.predictive.context_prediction import POSITIONS, neighbors
from tests.contracts.methods import tiny_encoder
from tests.methods.test_jigsaw import tiles_of


def context_prediction(**kwargs):
    augmenter = kerassl.augmentation.context_prediction(28, view_size=60)
    settings = dict(projection_dim=5, hidden_dim=7, augmenter=augmenter)
    return kerassl.ContextPrediction(tiny_encoder(), **(settings | kwargs))


def test_all_ordered_pairs_of_neighbors_are_asked():
    first, second, place = neighbors()
    pairs = set(zip(first.tolist(), second.tolist()))
    # 6 across, 6 down, 8 diagonal, each both ways.
    assert len(pairs) == len(first) == 40
    assert all((b, a) in pairs for a, b in pairs)
    for a, b, p in zip(first, second, place):
        down, right = POSITIONS[p]
        assert (b // 3 - a // 3, b % 3 - a % 3) == (down, right)
    # The center has all eight.
    assert sorted(place[first == 4]) == list(range(8))


def test_a_pair_is_classified_from_its_two_patches_alone(images):
    model = context_prediction()
    tiles = tiles_of(images[:3])
    logits = ops.convert_to_numpy(model({"tiles": tiles})["logits"])
    assert logits.shape == (3, 40, 8)
    features = ops.relu(
        model.projector(
            model.patch_encoder(
                ops.convert_to_tensor(tiles.reshape(-1, 15, 15, 1))
            )
        )
    )
    features = ops.convert_to_numpy(features).reshape(3, 9, 5)
    first, second, _ = neighbors()
    for pair in (0, 17, 39):
        both = np.concatenate(
            [features[:, first[pair]], features[:, second[pair]]], axis=-1
        )
        np.testing.assert_allclose(
            ops.convert_to_numpy(model.classifier(ops.convert_to_tensor(both))),
            logits[:, pair],
            rtol=1e-4,
            atol=1e-5,
        )


def test_the_target_is_where_the_second_patch_lies():
    model = context_prediction()
    _, _, place = neighbors()
    right = np.eye(8, dtype="float32")[place][None] * 50
    scores = model.objective({"logits": ops.convert_to_tensor(right)})
    assert float(scores["position_accuracy"]) == 1.0
    assert float(scores["loss"]) < 1e-6


def test_it_takes_nine_patches():
    with pytest.raises(ValueError, match="TileAugmenter"):
        context_prediction(augmenter=kerassl.augmentation.crop_flip(28))
