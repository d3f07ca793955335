"""Tests specific to SimSiam."""

import keras
import numpy as np
import pytest
from keras import ops

import kerassl
from kerassl.augmentation import View, ViewAugmenter
from tests.backends import gradient_of, once
from tests.contracts.methods import tiny_encoder
from tests.methods.formulas import six_steps_agree


def simsiam(dim=16, **kwargs):
    return kerassl.SimSiam(
        tiny_encoder(), projection_dim=dim, predictor_dim=dim // 4, **kwargs
    )


def test_the_projectors_layers():
    model = simsiam(hidden_dim=40, projector_layers=2)
    kernels = [
        tuple(w.shape) for w in model.projector.weights if len(w.shape) == 2
    ]
    assert kernels == [(24, 40), (40, 16)]
    config = model.get_config()
    assert (config["hidden_dim"], config["projector_layers"]) == (40, 2)
    with pytest.raises(ValueError, match="`projector_layers`"):
        simsiam(projector_layers=0)


def test_the_heads():
    model = simsiam()
    shapes, names = (
        [
            [read(w) for w in head.trainable_weights]
            for head in (model.projector, model.predictor)
        ]
        for read in (
            lambda w: tuple(w.shape),
            lambda w: w.path.split("/")[-1],
        )
    )
    matrices = [[s for s in head if len(s) == 2] for head in shapes]
    assert matrices == [[(24, 24), (24, 24), (24, 16)], [(16, 4), (4, 16)]]
    # Batch normalization at the projector's end, without scale and offset.
    hidden = ["kernel", "gamma", "beta"]
    assert names == [hidden * 2 + ["kernel"], [*hidden, "kernel", "bias"]]
    last = model.projector.stack[-1]
    assert isinstance(last, keras.layers.BatchNormalization)
    assert not last.scale and not last.center
    assert isinstance(model.predictor.stack[-1], keras.layers.Dense)


def unit(x):
    # The narrow predictor may have rows of zeros.
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def test_the_loss_is_the_mean_of_both_directions(images):
    model = simsiam()
    view = ops.convert_to_tensor(images[:16].astype("float32"))
    outputs = model.forward_views(
        {"view_1": view, "view_2": ops.flip(view, axis=2)}, training=True
    )
    found = {
        name: unit(ops.convert_to_numpy(value).astype("float64"))
        for name, value in outputs.items()
    }
    cosines = [
        np.sum(found[f"prediction_{i}"] * found[f"projection_{j}"], axis=1)
        for i, j in ((1, 2), (2, 1))
    ]
    scalars = model.objective(outputs)
    assert float(scalars["loss"]) == pytest.approx(
        -np.mean(cosines), rel=1e-4, abs=1e-6
    )
    assert float(scalars["output_std"]) == pytest.approx(
        np.mean(found["projection_1"].std(axis=0)), rel=1e-4
    )


@pytest.mark.parametrize("stop_gradient", [True, False])
def test_a_gradient_through_the_targets_only_if_asked_for(stop_gradient):
    model = simsiam(stop_gradient=stop_gradient)
    rng = np.random.default_rng(0)
    outputs = {
        f"{kind}_{i}": ops.convert_to_tensor(
            rng.normal(size=(8, 16)).astype("float32")
        )
        for kind in ("projection", "prediction")
        for i in (1, 2)
    }

    def loss(projection):
        return model.objective(outputs | {"projection_1": projection})["loss"]

    gradient = gradient_of(loss, outputs["projection_1"])
    assert (np.abs(gradient).max() > 0) != stop_gradient

    def loss(prediction):
        return model.objective(outputs | {"prediction_1": prediction})["loss"]

    assert np.abs(gradient_of(loss, outputs["prediction_1"])).max() > 0


def same_start_everywhere(model):
    """Sets weights from NumPy, so that backends differ by rounding only."""
    rng = np.random.default_rng(2)
    for w in model.trainable_variables:
        if len(w.shape) > 1:
            w.assign(rng.normal(size=w.shape) / np.prod(w.shape[:-1]) ** 0.5)


@once
def test_without_the_stopped_gradient_the_outputs_collapse():
    """With pairs of different images only a collapse reduces the loss."""
    images = kerassl.data.load("fashion_mnist_small", limit=512).images
    x = images.astype("float32")
    pairs = {"view_1": x, "view_2": np.roll(x, 1, axis=0)}
    spread, loss = {}, {}
    for stop_gradient in (True, False):
        model = simsiam(dim=64, stop_gradient=stop_gradient)
        same_start_everywhere(model)
        # At 0.5 a single epoch may be an outlier.
        model.compile(keras.optimizers.SGD(0.2, momentum=0.9))
        history = model.fit(
            pairs, batch_size=256, epochs=40, shuffle=False, verbose=0
        ).history
        # About 1 if the outputs are spread over the sphere.
        stds = np.multiply(history["output_std"], 64**0.5)
        assert stds[0] > 0.9
        spread[stop_gradient] = stds[-1]
        loss[stop_gradient] = history["loss"][-1]
    assert spread[True] > 0.9 and loss[True] > -0.5
    # The last batch normalization keeps a few images apart for a long time.
    assert spread[False] < 0.5 and loss[False] < -0.8


def test_one_view_is_refused():
    with pytest.raises(ValueError, match="2 views"):
        simsiam(augmenter=ViewAugmenter([View(28)]))


@once
@pytest.mark.parametrize("views", [2, 4])
def test_six_steps_on_the_papers_formulas(views):
    import torch

    def formula(outputs):
        z = [outputs[f"projection_{i + 1}"].detach() for i in range(views)]
        losses = []
        for i in range(views):
            others = [z[j] for j in range(views) if j != i]
            target = torch.stack(others).mean(0)
            prediction = outputs[f"prediction_{i + 1}"]
            losses.append(-torch.cosine_similarity(prediction, target).mean())
        return torch.stack(losses).mean()

    augmenter = kerassl.augmentation.moco_v2(28, num_views=views)
    six_steps_agree(lambda: simsiam(dim=64, augmenter=augmenter), formula)
