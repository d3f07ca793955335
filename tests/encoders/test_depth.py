"""Stochastic depth, in the student's ViT only."""

import keras
import numpy as np
import pytest
from keras import ops

import kerassl
from kerassl import encoders
from kerassl.encoders.depth import RandomDepth
from kerassl.execution import lent
from kerassl.networks import all_layers
from tests.contracts.methods import ibot, tiny_encoder, tiny_vit


def value(x):
    return ops.convert_to_numpy(x)


def test_an_image_skips_the_last_block_or_gets_more_of_it(images):
    encoder = tiny_vit(tiny_encoder())
    model = encoders.at_random_depth(encoder, 0.25, seed=3)
    assert {id(w) for w in model.trainable_weights} == {
        id(w) for w in encoder.trainable_weights
    }
    x = np.tile(images[:1], (200, 1, 1, 1)).astype("float32")
    expected = value(encoder(x[:1], training=False))
    np.testing.assert_allclose(value(model(x[:1], training=False)), expected)
    # The tiny ViT has two blocks; the first is never skipped.
    blocks = encoder.get_layer("backbone").layers[-1]
    pixels = encoder.get_layer("backbone").layers[1](encoder.layers[1](x[:1]))
    first = blocks.encoder_layers[0](pixels)
    second = blocks.encoder_layers[1](first)
    skipped, more = (
        value(blocks.layer_norm(first + share * (second - first)))[0, 0]
        for share in (0.0, 1 / 0.75)
    )
    found = value(model(x, training=True))
    is_skipped = np.abs(found - skipped).max(axis=1) < 1e-3
    is_more = np.abs(found - more).max(axis=1) < 1e-3
    assert (is_skipped ^ is_more).all()
    # Four deviations around 50 of 200.
    assert 25 < is_skipped.sum() < 75
    again = value(model(x, training=True))
    assert np.abs(found - again).max() > 1e-3


@pytest.mark.skipif(
    keras.config.backend() != "torch", reason="PyTorch's graphs"
)
def test_its_blocks_run_as_graphs(images):
    model = encoders.at_random_depth(tiny_vit(tiny_encoder()), 0.25, seed=3)
    (depth,) = (x for x in all_layers(model) if isinstance(x, RandomDepth))
    state = depth.seed_generator.state
    start = value(state).copy()
    expected = value(model(images[:8], training=True))
    state.assign(start)
    with lent(model):
        for block in depth.encoder.encoder_layers:
            assert type(block).graph.steps and not type(block).graph.called
        found = value(model(images[:8], training=True))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def dino_on_vit(encoder, **kwargs):
    augmenter = kerassl.augmentation.dino(28, 14, num_local_crops=1)
    return kerassl.DINO(
        tiny_vit(encoder), 12, 16, 8, augmenter=augmenter, **kwargs
    )


@pytest.mark.parametrize("make", [dino_on_vit, ibot])
def test_the_student_skips_and_the_teacher_does_not(make, images):
    settings = dict(stochastic_depth=0.5, head_normalization=False)
    model = make(tiny_encoder(), **settings)
    made = model.make_views(ops.convert_to_tensor(images[:8]))
    one, two = (
        {k: value(v) for k, v in model.forward_views(made, True).items()}
        for _ in range(2)
    )
    for name in ("teacher_view_1", "teacher_view_2"):
        np.testing.assert_array_equal(one[name], two[name])
    for name in ("view_1", "view_2", "view_3"):
        assert np.abs(one[name] - two[name]).max() > 1e-3
    plain = model.encoder(images[:8], training=False)
    np.testing.assert_allclose(
        value(model.encode_views({"view_1": images[:8]}, ["view_1"])["view_1"]),
        value(plain),
        rtol=1e-4,
        atol=1e-5,
    )
    # What is published is the encoder itself.
    assert model.feature_encoder is model.momentum_encoder.network
    model.compile(keras.optimizers.SGD(0.1))
    history = model.fit(images, batch_size=32, verbose=0).history
    assert np.isfinite(history["loss"]).all()


def test_other_encoders_and_rates_are_refused():
    with pytest.raises(ValueError, match="has none"):
        encoders.at_random_depth(tiny_encoder(), 0.1)
    with pytest.raises(ValueError, match="in .0, 1."):
        encoders.at_random_depth(tiny_vit(tiny_encoder()), 1.0)
