"""Models that an older kerassl saved load, are the same, and go on."""

import keras
import numpy as np
import pytest

import kerassl
from tests.backends import more
from tests.saved import make

NAMES = sorted(path.stem for path in make.FOLDER.glob("*.keras"))
# Of three kinds, with three optimizers: views of two sizes with prototypes and
# a queue, a discriminator, and a ViT.
EVERYWHERE = ("swav", "context_encoder", "mae")


def test_all_are_tested():
    assert len(NAMES) == 7


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name,
            marks=pytest.mark.every_backend
            if name in EVERYWHERE
            else more("PyTorch's run and three kinds", always_on="torch"),
        )
        for name in NAMES
    ],
)
def test_a_saved_model_goes_on(name):
    model = keras.saving.load_model(make.FOLDER / f"{name}.keras")
    # Keras saves what `jit_compile="auto"` was where the file was made.
    model.jit_compile = keras.backend.backend() == "jax"
    assert isinstance(model, kerassl.methods.SelfSupervisedModel)
    assert int(model.optimizer.iterations) == 1
    with np.load(make.FOLDER / f"{name}.npz") as file:
        saved = dict(file)

    same(model.embed(make.images()), saved["features"])

    # Its next step is the old code's: weights, optimizer and momentum network
    # are all there.
    history = model.fit(
        make.views(name), batch_size=make.COUNT, shuffle=False, verbose=0
    )
    same(history.history["loss"][0], saved["loss"])
    same(model.embed(make.images()), saved["after"])
    assert np.abs(saved["after"] - saved["features"]).max() > 1e-3

    # And it still makes views of images.
    made = model.augmenter(make.images(32))
    assert list(made) == list(model.augmenter.view_names)
    for view, given in make.views(name).items():
        if view in made:
            assert made[view].shape == given.shape


def same(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
