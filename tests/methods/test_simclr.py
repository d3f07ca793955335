"""Tests specific to SimCLR."""

import keras
import numpy as np
import pytest
from keras import ops

import kerassl
from kerassl.augmentation import View, ViewAugmenter
from kerassl.losses import nt_xent
from tests.backends import once
from tests.contracts.methods import tiny_encoder
from tests.methods.formulas import six_steps_agree


@pytest.mark.parametrize("version,layers", [(1, 2), (2, 3)])
def test_the_heads_of_both_papers(version, layers):
    model = kerassl.SimCLR(tiny_encoder(), projection_dim=8, version=version)
    kernels = [
        tuple(w.shape) for w in model.projector.weights if len(w.shape) == 2
    ]
    assert kernels == [(24, 24)] * (layers - 1) + [(24, 8)]
    # Batch normalization everywhere, without offset at the output; no biases.
    names = [w.path.split("/")[-1] for w in model.projector.trainable_weights]
    assert names.count("gamma") == layers and "bias" not in names
    assert names.count("beta") == layers - 1
    model.compile(keras.optimizers.SGD(0.1))
    images = kerassl.data.load("fashion_mnist_small", limit=64).images
    assert np.isfinite(model.fit(images, verbose=0).history["loss"]).all()


def test_the_projectors_hidden_width():
    model = kerassl.SimCLR(
        tiny_encoder(), projection_dim=8, version=2, hidden_dim=40
    )
    kernels = [
        tuple(w.shape) for w in model.projector.weights if len(w.shape) == 2
    ]
    assert kernels == [(24, 40), (40, 40), (40, 8)]
    assert model.get_config()["hidden_dim"] == 40
    assert model.encoder_with_projector().output_shape == (None, 40)


def test_both_views_share_one_pass():
    """Batch statistics are over all 2N images, as in the authors' code."""
    model = kerassl.SimCLR(tiny_encoder(), projection_dim=8)
    rng = np.random.default_rng(0)
    views = {
        f"view_{i}": ops.convert_to_tensor(
            rng.integers(0, 256, (8, 28, 28, 1)).astype("float32")
        )
        for i in (1, 2)
    }
    outputs = model.forward_views(views, training=True)
    together = model.projector(
        model.encoder(ops.concatenate(list(views.values())), training=True),
        training=True,
    )
    made = [ops.convert_to_numpy(outputs[f"projection_{i}"]) for i in (1, 2)]
    np.testing.assert_allclose(
        np.concatenate(made),
        ops.convert_to_numpy(together),
        rtol=1e-4,
        atol=1e-5,
    )
    scalars = model.objective(outputs)
    loss, accuracy = nt_xent(*outputs.values(), model.temperature).values()
    assert float(scalars["loss"]) == pytest.approx(float(loss))
    assert float(scalars["contrastive_accuracy"]) == float(accuracy)


def values(variables):
    return [ops.convert_to_numpy(v) for v in variables]


def test_the_encoder_with_the_projectors_first_layer(tmp_path):
    """The network that the second paper fine-tunes."""
    model = kerassl.SimCLR(tiny_encoder(), projection_dim=8, version=2)
    model.compile(keras.optimizers.SGD(0.1))
    images = kerassl.data.load("fashion_mnist_small", limit=64).images
    model.fit(images, verbose=0)
    longer = model.encoder_with_projector()
    assert longer.output_shape == (None, 24)
    assert kerassl.encoders.as_encoder(longer) is longer
    # By hand, in inference mode: dense, batch normalization, ReLU.
    x = ops.convert_to_tensor(images[:16].astype("float32"))
    kernel, gamma, beta, mean, variance = values(model.projector.weights[:5])
    expected = ops.convert_to_numpy(model.encoder(x, training=False)) @ kernel
    expected = (expected - mean) / np.sqrt(variance + 1e-5) * gamma + beta
    np.testing.assert_allclose(
        ops.convert_to_numpy(longer(x, training=False)),
        np.maximum(expected, 0),
        rtol=1e-4,
        atol=1e-4,
    )
    assert expected.min() < 0
    assert model.encoder_with_projector(2).count_params() > (
        longer.count_params()
    )
    # It shares the weights, and is saved without kerassl's classes.
    own = {id(w) for w in model.weights}
    assert {id(w) for w in longer.weights} <= own
    config = str(keras.saving.serialize_keras_object(longer))
    assert "kerassl" not in config
    longer.save(tmp_path / "longer.keras")
    again = keras.saving.load_model(tmp_path / "longer.keras")
    np.testing.assert_allclose(
        *values([again(x, training=False), longer(x, training=False)]),
        rtol=1e-5,
        atol=1e-5,
    )


def test_the_projector_follows_an_encoder_with_dense_layers():
    """Keras names such layers `dense_1`, too."""
    inputs = keras.Input((28, 28, 1))
    flat = keras.layers.Flatten()(inputs / 255)
    hidden = keras.layers.Dense(8, name="dense_1")(flat)
    model = kerassl.SimCLR(keras.Model(inputs, hidden), projection_dim=8)
    assert model.encoder_with_projector().output_shape == (None, 8)


@pytest.mark.parametrize("version,layers", [(1, 0), (1, 2), (2, 3)])
def test_the_projectors_last_layer_is_not_for_features(version, layers):
    model = kerassl.SimCLR(tiny_encoder(), projection_dim=8, version=version)
    with pytest.raises(ValueError, match=f"{version} hidden layers"):
        model.encoder_with_projector(layers)


def test_the_default_views_have_the_encoders_size():
    model = kerassl.SimCLR(tiny_encoder())
    assert {v.size for v in model.augmenter.views.values()} == {28}


def test_larger_images_are_cropped_to_the_encoders_size():
    model = kerassl.SimCLR(tiny_encoder((28, 28, 3)), projection_dim=8)
    model.compile(keras.optimizers.SGD(0.1))
    images = np.random.default_rng(0).integers(0, 256, (16, 40, 50, 3))
    history = model.fit(images.astype("uint8"), verbose=0).history
    assert np.isfinite(history["loss"]).all()


@pytest.mark.parametrize(
    "arguments,message",
    [
        (dict(temperature=0.0), "temperature"),
        (dict(version=3), "version"),
        (dict(decoupled=True, supervised=True), "choose one"),
        (dict(augmenter=ViewAugmenter([View(28)])), "2 views"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        kerassl.SimCLR(tiny_encoder(), **arguments)


def test_open_image_sizes_need_an_augmenter():
    encoder = tiny_encoder((None, None, 1))
    with pytest.raises(ValueError, match="augmenter"):
        kerassl.SimCLR(encoder)


@once
@pytest.mark.parametrize("decoupled", [False, True])
def test_six_steps_on_the_papers_formulas(decoupled):
    import torch

    def formula(outputs):
        z = torch.cat([outputs["projection_1"], outputs["projection_2"]])
        z = z / z.norm(dim=1, keepdim=True)
        count = len(z) // 2
        losses = []
        for i in range(2 * count):
            partner = (i + count) % (2 * count)
            left_out = (i, partner) if decoupled else (i,)
            others = [k for k in range(2 * count) if k not in left_out]
            similarity = z @ z[i] / 0.5
            denominator = torch.exp(similarity[others]).sum()
            losses.append(torch.log(denominator) - similarity[partner])
        return torch.stack(losses).mean()

    six_steps_agree(
        lambda: kerassl.SimCLR(
            tiny_encoder(), 0.5, projection_dim=8, decoupled=decoupled
        ),
        formula,
    )


@once
def test_six_steps_on_the_formula_of_supcon():
    import torch

    def formula(outputs):
        z = torch.cat([outputs["projection_1"], outputs["projection_2"]])
        z = z / z.norm(dim=1, keepdim=True)
        labels = outputs["labels"].repeat(2)
        losses = []
        for i in range(len(z)):
            others = torch.arange(len(z)) != i
            similarity = z @ z[i] / 0.5
            partners = similarity[others & (labels == labels[i])]
            total = torch.exp(similarity[others]).sum()
            losses.append(-torch.log(torch.exp(partners) / total).mean())
        return torch.stack(losses).mean()

    six_steps_agree(
        lambda: kerassl.SimCLR(
            tiny_encoder(), 0.5, projection_dim=8, supervised=True
        ),
        formula,
    )


def test_the_collapsed_loss_of_all_three():
    for switch in ({}, {"decoupled": True}, {"supervised": True}):
        model = kerassl.SimCLR(tiny_encoder(), projection_dim=8, **switch)
        outputs = {f"projection_{i}": ops.ones((8, 8)) for i in (1, 2)}
        outputs["labels"] = ops.convert_to_tensor([0, 1, 2, 0, 1, 1, 3, 0])
        loss = float(model.objective(outputs)["loss"])
        assert loss == pytest.approx(model.collapsed_loss(8), rel=1e-5)
