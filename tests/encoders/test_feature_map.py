"""The feature map before an encoder's pooling."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from kerassl import encoders
from tests.backends import once

pytestmark = pytest.mark.every_backend

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), "uint8")


def run(model):
    return ops.convert_to_numpy(
        model(ops.convert_to_tensor(IMAGES.astype("float32")), training=False)
    )


# The large ones are as their smaller kin, and slow to build.
@pytest.mark.parametrize(
    "name",
    [
        "resnet_nano",
        "vit_nano",
        *(
            pytest.param(name, marks=once)
            for name in ("resnet_18_small", "resnet_18", "vit_tiny")
        ),
    ],
)
def test_every_encoder_has_one(name):
    encoder = encoders.build(name, (32, 32, 3))
    model = encoders.feature_map(encoder)
    maps = run(model)
    side = {"resnet_nano": 4, "resnet_18_small": 4, "resnet_18": 1}.get(name, 8)
    assert maps.shape == (2, side, side, encoder.output_shape[-1])
    assert model.output_shape == (None, *maps.shape[1:])
    ours, its = ([id(w) for w in m.weights] for m in (model, encoder))
    assert sorted(ours) == sorted(its)
    if name.startswith("vit"):
        tokens = encoder.get_layer("backbone")(
            encoder.get_layer("normalization")(ops.convert_to_tensor(IMAGES))
        )
        patches = ops.convert_to_numpy(tokens)[:, 1:]
        np.testing.assert_allclose(
            maps.reshape(2, 64, -1), patches, rtol=1e-4, atol=1e-5
        )
    else:
        np.testing.assert_allclose(
            maps.mean(axis=(1, 2)), run(encoder), rtol=1e-4, atol=1e-5
        )


def convolved(inputs, **kwargs):
    return layers.Conv2D(5, 3, strides=2, padding="same", **kwargs)(inputs)


def test_models_that_end_with_a_pool():
    inputs = keras.Input((32, 32, 3))
    x = convolved(inputs)
    for pool in (layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D):
        encoder = keras.Model(inputs, pool()(x))
        expected = run(keras.Model(inputs, x))
        np.testing.assert_array_equal(
            run(encoders.feature_map(encoder)), expected
        )
        # Also at another size, and twice.
        smaller = encoders.feature_map(encoders.at_size(encoder, 16))
        assert smaller.output_shape == (None, 8, 8, 5)
    sequential = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.Conv2D(5, 3),
            layers.GlobalAveragePooling2D(),
        ]
    )
    model = encoders.feature_map(sequential)
    assert model.output_shape == (None, 30, 30, 5)
    assert model.weights[0] is sequential.weights[0]


def test_what_as_encoder_pooled():
    inputs = keras.Input((32, 32, 3))
    body = keras.Model(inputs, convolved(inputs))
    model = encoders.feature_map(
        encoders.as_encoder(body, normalization="included")
    )
    np.testing.assert_array_equal(run(model), run(body))
    # Tokens without a class token, of images that aren't square.
    inputs = keras.Input((32, 16, 3))
    tokens = layers.Reshape((128, 5))(convolved(inputs))
    body = keras.Model(inputs, tokens)
    model = encoders.feature_map(
        encoders.as_encoder(body, normalization="included", pooling="mean")
    )
    assert model.output_shape == (None, 16, 8, 5)


def test_others_are_refused():
    inputs = keras.Input((32, 32, 3))
    flat = layers.Dense(4)(layers.Flatten()(convolved(inputs)))
    with pytest.raises(ValueError, match="no feature map"):
        encoders.feature_map(keras.Model(inputs, flat))
    with pytest.raises(ValueError, match="no feature map"):
        encoders.feature_map(
            keras.Model(inputs, layers.Flatten()(convolved(inputs)))
        )
    tokens = layers.Reshape((256, 5))(convolved(inputs))
    seven = layers.Cropping1D((0, 249))(tokens)
    pooled = layers.GlobalAveragePooling1D()(seven)
    with pytest.raises(ValueError, match="7 tokens"):
        encoders.feature_map(keras.Model(inputs, pooled))


def test_a_model_without_a_graph_is_refused():
    class Subclass(keras.Model):
        def __init__(self):
            super().__init__()
            self.pool = layers.GlobalAveragePooling2D()

        def call(self, x):
            return self.pool(x)

        @property
        def input_shape(self):
            return (None, 32, 32, 3)

    with pytest.raises(ValueError, match="not a Functional model"):
        encoders.feature_map(Subclass())
