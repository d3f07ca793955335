"""Layers that are frozen, thawed or changed after a method was made."""

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

import kerassl
from kerassl.evaluation import fine_tuning
from kerassl.layers import MomentumNetwork
from kerassl.networks import set_trainable
from tests.contracts.methods import METHODS, tiny_encoder


def arrays(layer):
    # Copies, since TensorFlow's arrays may alias the variables.
    return [np.array(ops.convert_to_numpy(w)) for w in layer.weights]


def network():
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(5),
            keras.layers.BatchNormalization(momentum=0.5),
            keras.layers.Dense(3),
        ]
    )


@pytest.fixture
def images():
    return np.random.randint(0, 256, (16, 28, 28, 1)).astype("uint8")


@pytest.fixture
def inputs():
    return 3 + np.random.randn(16, 6).astype("float32")


def test_all_layers_are_thawed():
    # On TensorFlow Keras's setter does nothing if the model is trainable
    # already.
    model = network()
    for layer in model.layers:
        layer.trainable = False
    set_trainable(model, True)
    assert len(model.trainable_weights) == 6
    set_trainable(model, False)
    assert not any(layer.trainable for layer in model.layers)


@pytest.mark.parametrize("copy_weights", [True, False])
def test_a_copy_follows_what_is_frozen_and_thawed(inputs, copy_weights):
    online = network()
    dense, norm, _ = online.layers
    online(inputs, training=True)
    online.trainable = False
    copy = MomentumNetwork(online, 0.5, copy_weights)

    def outputs():
        # In training mode, where a frozen normalization uses moving statistics.
        return [
            ops.convert_to_numpy(f(inputs, training=True))
            for f in (online, copy)
        ]

    np.testing.assert_allclose(*outputs(), rtol=1e-6, atol=1e-6)
    for a, b in zip(arrays(online), arrays(copy)):
        np.testing.assert_array_equal(a, b)
    online.trainable = True
    dense.trainable = False
    copy.follow()
    assert not copy.trainable_variables
    moving = ops.convert_to_numpy(norm.moving_mean)
    copy(inputs, training=True)
    assert np.abs(arrays(copy)[4] - moving).min() > 0
    online.set_weights([w + 1 for w in online.get_weights()])
    before = arrays(copy)
    copy.update(online, 0)
    for i, (a, b, old) in enumerate(zip(arrays(online), arrays(copy), before)):
        expected = old if i in (4, 5) else (a + old) / 2
        np.testing.assert_allclose(b, expected, rtol=1e-6)
    # Frozen for good, it is equal at once.
    copy.follow()
    for a, b in zip(arrays(online)[:2], arrays(copy)):
        np.testing.assert_array_equal(a, b)


def test_a_network_that_changed_is_refused():
    online = network()
    copy = MomentumNetwork(online, 0.5)
    online.layers[0].enable_lora(2)
    with pytest.raises(ValueError, match="other weights than when"):
        copy.follow()


def test_copies_normalize_as_the_adapted_encoder(images):
    inputs = keras.Input((28, 28, 1))
    normalization = keras.layers.Normalization()
    x = keras.layers.Flatten()(normalization(inputs))
    normalization.adapt(images[:2].astype("float32"))
    encoder = keras.Model(inputs, keras.layers.Dense(4)(x))
    model = kerassl.MoCo(encoder, projection_dim=4, queue_size=32)
    # Adapted only now, after the method was made.
    normalization.adapt(images.astype("float32"))
    model.compile("sgd")
    expected = ops.convert_to_numpy(encoder(images))
    found = ops.convert_to_numpy(model.momentum_encoder(images))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    copy = fine_tuning._copy(encoder)
    found = ops.convert_to_numpy(copy(images))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_the_optimizer_must_know_what_is_thawed(images):
    model = METHODS["byol"](tiny_encoder())
    model.encoder.trainable = False
    model.compile("sgd")
    model.train_on_batch(images)
    model.encoder.trainable = True
    for step in (model.train_on_batch, lambda x: model.fit(x, verbose=0)):
        with pytest.raises(ValueError, match="`compile` again, with a new"):
            step(images)
    model.compile("sgd")
    before = arrays(model.encoder), arrays(model.momentum_encoder)
    model.fit(images, verbose=0)
    for old, layer in zip(before, (model.encoder, model.momentum_encoder)):
        assert np.abs(arrays(layer)[0] - old[0]).max() > 0


def test_what_is_frozen_is_saved(images, tmp_path):
    # The configs of KerasHub's models and of heads omit `trainable`.
    model = METHODS["mae"](tiny_encoder())
    model.embedding.trainable = False
    model.decoder[0].trainable = False
    model.compile(kerassl.optimizers.AdamW(0.01))
    model.fit(images, batch_size=8, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert not again.embedding.trainable
    assert again.blocks.trainable
    same = [v.path for v in model.trainable_variables]
    assert [v.path for v in again.trainable_variables] == same
    slots = model.optimizer.variables, again.optimizer.variables
    for a, b in zip(*slots, strict=True):
        np.testing.assert_array_equal(*map(ops.convert_to_numpy, (a, b)))


@pytest.mark.parametrize("name", ["lars", "adamw", "rates"])
def test_optimizers_take_what_is_left(images, name):
    model = METHODS["simsiam"](tiny_encoder())
    model.encoder.layers[2].trainable = False
    if name == "rates":
        model.predictor.trainable = False
    make = {"lars": kerassl.optimizers.LARS, "adamw": kerassl.optimizers.AdamW}
    optimizer = make.get(name, kerassl.optimizers.LARS)(0.1, weight_decay=0.1)
    if name not in make:
        optimizer = kerassl.optimizers.with_learning_rates(
            optimizer, {"predictor": 0.1}
        )
    model.compile(optimizer)
    before = arrays(model)
    frozen = [not w.trainable for w in model.weights]
    model.fit(images, verbose=0)
    for is_frozen, weight, old in zip(frozen, model.weights, before):
        new = ops.convert_to_numpy(weight)
        if "moving" not in weight.path:
            assert (np.abs(new - old).max() == 0) == is_frozen, weight.path


def test_a_loaded_encoder_is_thawed():
    presets = Path(__file__).parents[2] / "presets"
    encoder = kerassl.load_encoder(
        presets / "simclr_resnet_nano_cifar10", trainable=False
    )
    views = kerassl.augmentation.byol(32)
    model = kerassl.BYOL(
        encoder,
        hidden_dim=8,
        projection_dim=4,
        momentum=0.5,
        copy_weights=True,
        augmenter=views,
    )
    encoder.trainable = True
    model.compile("sgd")
    encoder.set_weights([w + 1 for w in encoder.get_weights()])
    before = arrays(model.momentum_encoder)
    model.momentum_encoder.update(encoder, 0)
    for weight, old, new in zip(
        encoder.weights, before, arrays(model.momentum_encoder)
    ):
        step = 0.0 if "moving" in weight.name else 0.5
        np.testing.assert_allclose(new, old + step, rtol=1e-5, atol=1e-5)
    norms = [
        x for x in model.momentum_encoder.network.layers if "norm" in x.name
    ]
    assert norms and all(layer.trainable for layer in norms)


@pytest.mark.every_backend
@pytest.mark.parametrize("name", METHODS)
def test_a_thawed_model_trains_what_it_trained_before(name, images):
    model = METHODS[name](tiny_encoder())
    before = [id(v) for v in model.trainable_variables]
    model.trainable = False
    model.trainable = True
    model.compile("sgd")
    assert [id(v) for v in model.trainable_variables] == before
    if name in ("mae", "distillation"):
        # On JAX Keras builds the optimizer before it makes the step.
        model.fit(images, batch_size=16, verbose=0)
        assert [id(v) for v in model.trainable_variables] == before
