"""What is SimCLR's own."""

import keras
import numpy as np
import pytest
from keras import ops

import kerassl
from kerassl.augmentation import View, ViewAugmenter
from kerassl.losses import nt_xent
from tests.contracts.methods import tiny_encoder


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
    loss, accuracy = nt_xent(*outputs.values(), model.temperature)
    assert float(scalars["loss"]) == pytest.approx(float(loss))
    assert float(scalars["contrastive_accuracy"]) == float(accuracy)


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
        (dict(augmenter=ViewAugmenter([View(28)])), "two views"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        kerassl.SimCLR(tiny_encoder(), **arguments)


def test_open_image_sizes_need_an_augmenter():
    encoder = tiny_encoder((None, None, 1))
    with pytest.raises(ValueError, match="augmenter"):
        kerassl.SimCLR(encoder)
