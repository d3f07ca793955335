"""Pictures during `fit`."""

import keras
import numpy as np
import pytest
from keras import ops

from kerassl.callbacks import PretextPictures
from tests.contracts.methods import METHODS, tiny_encoder


def fit(images, callbacks):
    keras.utils.set_random_seed(2)
    model = METHODS["jigsaw"](tiny_encoder())
    model.compile(keras.optimizers.SGD(0.05))
    model.fit(
        images,
        batch_size=32,
        epochs=3,
        shuffle=False,
        verbose=0,
        callbacks=callbacks,
    )
    return [ops.convert_to_numpy(v) for v in model.variables]


def test_it_writes_pictures_and_does_not_change_the_run(images, tmp_path):
    folder = tmp_path / "some" / "pictures"
    drawn = fit(images, [PretextPictures(images[:3], folder, every=2)])
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["epoch_0002.png", "epoch_0003.png"]
    for path in folder.iterdir():
        assert path.read_bytes()[:4] == b"\x89PNG"
    for a, b in zip(drawn, fit(images, []), strict=True):
        np.testing.assert_array_equal(a, b)


def test_bad_arguments_are_refused(images, tmp_path):
    with pytest.raises(ValueError, match="every"):
        PretextPictures(images[:3], tmp_path, every=0)
    with pytest.raises(ValueError, match="shape"):
        PretextPictures(images[0], tmp_path)


def test_another_size_is_refused_before_training_where_one_is_needed(tmp_path):
    model = METHODS["simmim"](tiny_encoder())
    model.compile("sgd")
    size, _, channels = model.encoder.input_shape[1:]
    large = np.zeros((4, 2 * size, 2 * size, channels), "uint8")
    with pytest.raises(ValueError, match="Resize them first"):
        model.fit(
            large, verbose=0, callbacks=[PretextPictures(large, tmp_path)]
        )
    assert int(model.optimizer.iterations) == 0


def test_other_channels_are_refused_before_training(images, tmp_path):
    model = METHODS["jigsaw"](tiny_encoder())
    model.compile("sgd")
    color = np.repeat(images[:3], 3, axis=-1)
    with pytest.raises(ValueError, match="1 channels"):
        model.fit(
            images, verbose=0, callbacks=[PretextPictures(color, tmp_path)]
        )
    assert int(model.optimizer.iterations) == 0
