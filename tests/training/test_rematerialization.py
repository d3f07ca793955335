"""`keras.RematScope`: right, or refused."""

import contextlib
import functools

import keras
import numpy as np
import pytest
from keras import layers, ops

import kerassl

BACKEND = keras.config.backend()


def encoder(*inner):
    """Two dense layers and attention, with some layers in between."""
    images = keras.Input((8, 8, 1))
    x = layers.Reshape((16, 4))(layers.Rescaling(1 / 255)(images))
    x = layers.LayerNormalization()(layers.Dense(6, activation="gelu")(x))
    x = layers.MultiHeadAttention(2, 3)(x, x)
    for layer in inner:
        x = layer(x)
    return keras.Model(images, layers.GlobalAveragePooling1D()(x))


def model(network):
    made = kerassl.SimSiam(network, projection_dim=8, predictor_dim=4)
    made.compile(keras.optimizers.SGD(0.1))
    return made


def after_a_step(scope):
    keras.utils.set_random_seed(0)
    with scope:
        network = encoder()
    made = model(network)
    views = np.random.default_rng(0).uniform(0, 255, (2, 16, 8, 8, 1))
    made.train_on_batch(dict(zip(("view_1", "view_2"), views.astype("f4"))))
    return [ops.convert_to_numpy(weight) for weight in made.weights]


@pytest.mark.skipif(BACKEND == "tensorflow", reason="Keras refuses")
def test_layers_without_state_are_recomputed():
    plain, again = map(
        after_a_step, (contextlib.nullcontext(), keras.RematScope("full"))
    )
    for a, b in zip(plain, again, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "layer",
    [layers.BatchNormalization, functools.partial(layers.Dropout, 0.5)],
)
@pytest.mark.parametrize("names", [None, ["inner"]])
def test_layers_that_change_are_refused(layer, names):
    with keras.RematScope("list_of_layers" if names else "full", 0, names):
        inner = layer(name="inner")
        network = encoder(inner)
    with pytest.raises(
        ValueError, match="`keras.RematScope` covers .*'inner', a"
    ):
        model(network)
    # Activations alone may be recomputed.
    with keras.RematScope("activations"):
        model(encoder(layer()))


def test_a_method_in_the_scope_is_refused():
    network = encoder()
    with pytest.raises(ValueError, match="a ViewAugmenter, changes a weight"):
        with keras.RematScope("full"):
            model(network)


def test_large_layers_are_known_to_be_recomputed():
    with keras.RematScope("larger_than", output_size_threshold=16):
        inner = layers.BatchNormalization(name="inner")
    with pytest.raises(ValueError, match="'inner', a BatchNormalization"):
        model(encoder(inner))


def test_frozen_statistics_may_be_recomputed():
    with keras.RematScope("full"):
        network = encoder(layers.BatchNormalization())
    network.trainable = False
    model(network)
