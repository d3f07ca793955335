"""The guard of an encoder that has been trained before."""

import keras
import numpy as np
import pytest

import kerassl
from kerassl.callbacks import StartGuard
from tests.contracts.methods import simclr, tiny_encoder
from tests.encoders.test_adapt import features, pixels
from tests.layers.test_saved_positions import moved


@pytest.fixture
def data():
    """Two classes: bright left and bright right halves."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 60, (256, 28, 28, 1)).astype("uint8")
    labels = np.arange(256) % 2
    images[labels == 0, :, :14] += 180
    images[labels == 1, :, 14:] += 180
    return images, labels


class Spoil(keras.callbacks.Callback):
    """Makes the encoder forget everything in an epoch."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            weights = self.model.encoder.get_weights()
            self.model.encoder.set_weights([0 * w for w in weights])


def fit(guard, images, *callbacks, epochs=4):
    model = simclr(tiny_encoder())
    model.compile(keras.optimizers.SGD(0.0))
    history = model.fit(
        images,
        epochs=epochs,
        batch_size=128,
        verbose=0,
        callbacks=[guard, *callbacks],
    )
    return model, history.history


@pytest.mark.parametrize("with_labels", [True, False])
def test_it_stops_what_destroys_and_keeps_the_best(data, tmp_path, with_labels):
    images, labels = data
    best = tmp_path / "best.keras"
    guard = StartGuard(images, labels if with_labels else None, best=best)
    with pytest.warns(UserWarning, match="Epoch 3: training destroys"):
        model, history = fit(guard, images, Spoil(2))
    assert len(history["loss"]) == 3 and guard.fallen
    kept = kerassl.load_encoder(best).get_weights()
    assert (
        np.abs(kept[0]).max()
        > 0
        == np.abs(model.encoder.get_weights()[0]).max()
    )
    if with_labels:
        assert min(history["guard_accuracy"][:2]) > 0.9
        assert history["guard_accuracy"][-1] < 0.7
    else:
        assert min(history["start_agreement"][:2]) > 0.3
        assert history["start_agreement"][-1] < 0.2
    assert list(tmp_path.iterdir()) == [best]


def test_trained_positions_are_kept(tmp_path):
    """`fit` copies those of DINOv2 only at its end."""
    model, expected = moved(16, 1)
    best = tmp_path / "best.keras"
    guard = StartGuard(pixels(count=32), best=best)
    guard.set_model(model)
    guard.on_train_begin()
    for _ in range(2):
        loaded = kerassl.load_encoder(best)
        np.testing.assert_array_equal(features(loaded, pixels()), expected)
        best.unlink()
        guard.look(0, {})


def test_it_may_only_watch(data):
    images, labels = data
    guard = StartGuard(images, labels, stop=False)
    _, history = fit(guard, images, Spoil(1), epochs=3)
    assert len(history["loss"]) == 3


def test_the_best_of_before_counts(data, tmp_path):
    """As in a resumed run, whose encoder has become worse already."""
    images, labels = data
    best = tmp_path / "best.keras"
    start = tiny_encoder()
    start.save(best)
    before = best.read_bytes()
    guard = StartGuard(images, labels, start=start, best=best)
    with pytest.warns(UserWarning, match="was stopped"):
        fit(guard, images, Spoil(0), epochs=1)
    assert best.read_bytes() == before


def test_mistakes(data):
    images, labels = data
    with pytest.raises(ValueError, match="more than 20 images. Received: 20"):
        StartGuard(images[:20])
    with pytest.raises(ValueError, match="labels"):
        StartGuard(images, labels[:3])
