"""What is rotation's own."""

import keras
import numpy as np
import pytest
from keras import ops

import kerassl
from kerassl.methods.predictive.rotation import turns
from tests.contracts.methods import tiny_encoder


def test_turns_are_exact():
    images = np.random.default_rng(0).random((3, 8, 8, 3)).astype("float32")
    for k, turned in enumerate(turns(ops.convert_to_tensor(images))):
        np.testing.assert_array_equal(
            ops.convert_to_numpy(turned), np.rot90(images, k, axes=(1, 2))
        )


def test_all_turns_of_an_image_are_in_the_batch(images):
    model = kerassl.Rotation(tiny_encoder())
    views = {"view_1": images[:5].astype("float32")}
    logits = ops.convert_to_numpy(model(views)["logits"])
    assert logits.shape == (4, 5, 4)
    for k in range(4):
        turned = np.rot90(views["view_1"], k, axes=(1, 2)).copy()
        features = model.encoder(ops.convert_to_tensor(turned))
        np.testing.assert_allclose(
            logits[k],
            ops.convert_to_numpy(model.classifier(features)),
            rtol=1e-4,
            atol=1e-5,
        )


def test_the_target_is_the_turn():
    model = kerassl.Rotation(tiny_encoder())
    right = np.tile(np.eye(4)[:, None], (1, 6, 1)).astype("float32")
    scores = model.objective({"logits": ops.convert_to_tensor(right * 50)})
    assert float(scores["rotation_accuracy"]) == 1.0
    assert float(scores["loss"]) < 1e-6
    wrong = ops.convert_to_tensor(right[::-1].copy())
    scores = model.objective({"logits": wrong})
    assert float(scores["rotation_accuracy"]) == 0.0


def test_a_single_image_can_be_learned_from(images):
    model = kerassl.Rotation(tiny_encoder())
    model.compile(keras.optimizers.Adam(0.01))
    history = model.fit(images[:33], batch_size=32, verbose=0).history
    assert np.isfinite(history["loss"]).all()


def test_it_takes_one_view():
    with pytest.raises(ValueError, match="takes 1 views"):
        kerassl.Rotation(
            tiny_encoder(), augmenter=kerassl.augmentation.simclr(28)
        )
