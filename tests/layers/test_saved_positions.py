"""Position embeddings of KerasHub's DINOv2 in files."""

import keras
import numpy as np
import pytest

import kerassl
from kerassl import encoders
from tests.encoders.test_adapt import features, pixels
from tests.encoders.test_graph import dinov2

pytestmark = pytest.mark.every_backend


def moved(trained_at, by):
    """A model whose positions were trained, and its features."""
    backbone = dinov2(trained_at=trained_at)
    model = kerassl.SimCLR(encoders.as_encoder(backbone), projection_dim=4)
    positions = backbone.embeddings.interpolated_position_embeddings
    rng = np.random.default_rng(0)
    change = by * rng.uniform(0, 0.1, positions.shape)
    positions.assign(
        keras.ops.convert_to_numpy(positions) + change.astype("float32")
    )
    return model, features(model.encoder, pixels())


@pytest.mark.parametrize("by", [-1, 1])
def test_trained_positions_are_saved(by, tmp_path):
    model, expected = moved(16, by)
    model.save(tmp_path / "model.keras")
    model.encoder.save(tmp_path / "encoder.keras")
    for path in ("model.keras", "encoder.keras"):
        loaded = keras.saving.load_model(tmp_path / path)
        loaded = getattr(loaded, "encoder", loaded)
        np.testing.assert_array_equal(features(loaded, pixels()), expected)


def test_those_of_another_size_are_interpolated(tmp_path):
    model, expected = moved(32, 1)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    error = np.abs(features(loaded.encoder, pixels()) - expected).max()
    assert error < 0.1 * np.abs(expected).max()


def test_unchanged_ones_stay(tmp_path):
    model, _ = moved(32, 0)
    layer = model.encoder.layers[2].embeddings
    before = keras.ops.convert_to_numpy(layer.position_embeddings)
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(layer.position_embeddings), before
    )


def test_an_encoder_alone_can_be_saved_after_training(tmp_path):
    model, _ = moved(16, 1)
    model.compile(optimizer="sgd")
    model.fit(pixels(count=4), batch_size=4, verbose=0)
    model.encoder.save(tmp_path / "encoder.keras")
    loaded = keras.saving.load_model(tmp_path / "encoder.keras")
    np.testing.assert_array_equal(
        features(loaded, pixels()), features(model.encoder, pixels())
    )
