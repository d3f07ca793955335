"""Tests specific to BYOL."""

import keras
import numpy as np
import pytest
from keras import ops

import kerassl
from kerassl.augmentation import View, ViewAugmenter
from kerassl.layers import CosineMomentum
from tests.contracts.methods import tiny_encoder


def byol(**kwargs):
    model = kerassl.BYOL(
        tiny_encoder(), hidden_dim=16, projection_dim=8, **kwargs
    )
    model.compile(keras.optimizers.SGD(0.1))
    return model


def values(variables):
    return [ops.convert_to_numpy(v) for v in variables]


def ready_views(images):
    x = images.astype("float32")
    return {"view_1": x, "view_2": x[:, :, ::-1].copy()}


def tensors(views):
    return {name: ops.convert_to_tensor(view) for name, view in views.items()}


def pairs(model):
    return [
        (model.momentum_encoder, model.encoder),
        (model.momentum_projector, model.projector),
    ]


def parameters(model):
    """The variables of target and online network, in the same order."""
    found = [], []
    for target, online in pairs(model):
        for i in target.parameters_at:
            found[0].append(ops.convert_to_numpy(target.network.weights[i]))
            found[1].append(ops.convert_to_numpy(online.weights[i]))
    return found


def test_the_heads():
    model = byol()
    for head, width in ((model.projector, 24), (model.predictor, 8)):
        shapes = [tuple(w.shape) for w in head.weights if len(w.shape) == 2]
        assert shapes == [(width, 16), (16, 8)]
        names = [w.path.split("/")[-1] for w in head.trainable_weights]
        # A bias in the hidden layer; at the end neither bias nor norm.
        assert names == ["kernel", "bias", "gamma", "beta", "kernel"]
        assert isinstance(head.stack[-1], keras.layers.Dense)
    # The predictor has no copy.
    copied = [target.network.name for target, _ in pairs(model)]
    assert copied == [model.encoder.name, "projector"]


@pytest.mark.parametrize("copy_weights", [False, True])
def test_the_targets_first_weights(copy_weights):
    model = byol(copy_weights=copy_weights)
    target, online = parameters(model)
    matrices = [(a, b) for a, b in zip(target, online) if a.ndim >= 2]
    assert len(matrices) == 4
    for a, b in matrices:
        assert np.array_equal(a, b) == copy_weights
        # Drawn from the same distribution.
        assert a.std() == pytest.approx(b.std(), rel=0.5)


def test_the_loss_is_the_squared_distance_of_unit_vectors(images):
    model = byol()
    outputs = model.forward_views(
        tensors(ready_views(images[:16])), training=True
    )
    found = {}
    for name, value in outputs.items():
        value = ops.convert_to_numpy(value).astype("float64")
        found[name] = value / np.linalg.norm(value, axis=1, keepdims=True)
    distances = [
        np.sum((found[f"prediction_{i}"] - found[f"target_{j}"]) ** 2, axis=1)
        for i, j in ((1, 2), (2, 1))
    ]
    scalars = model.objective(outputs)
    assert float(scalars["loss"]) == pytest.approx(
        np.mean(distances[0] + distances[1]), rel=1e-5
    )
    assert float(scalars["output_std"]) == pytest.approx(
        np.mean(found["projection_1"].std(axis=0)), rel=1e-4
    )


def test_the_target_follows_the_new_weights_from_the_base_on(images):
    schedule = CosineMomentum(0.5, 4)
    model = byol(momentum=schedule)
    target, old_online = parameters(model)
    for step in range(2):
        momentum = float(schedule(step))
        assert momentum == 0.5 or step > 0
        model.train_on_batch(ready_views(images[:16]))
        after, online = parameters(model)
        for old, source, new in zip(target, online, after):
            expected = momentum * old + (1 - momentum) * source
            np.testing.assert_allclose(new, expected, rtol=1e-5, atol=1e-6)
        # This distinguishes the old online weights from the new ones.
        assert any(
            np.abs(a - b).max() > 1e-4 for a, b in zip(old_online, online)
        )
        target, old_online = after, online


def test_the_targets_statistics_are_of_its_own_batches(images):
    model = byol()
    network = model.momentum_encoder.network
    norm = next(
        layer
        for layer in network.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    )
    views = ready_views(images[:16])
    before_norm = keras.Model(network.inputs, norm.input)
    mean, variance = values([norm.moving_mean, norm.moving_variance])
    for view in tensors(views).values():
        x = ops.convert_to_numpy(before_norm(view, training=False))
        mean = 0.9 * mean + 0.1 * x.mean(axis=(0, 1, 2))
        variance = 0.9 * variance + 0.1 * x.var(axis=(0, 1, 2))
    model.train_on_batch(views)
    np.testing.assert_allclose(
        ops.convert_to_numpy(norm.moving_mean), mean, rtol=1e-3, atol=1e-5
    )
    np.testing.assert_allclose(
        ops.convert_to_numpy(norm.moving_variance), variance, rtol=1e-3
    )
    online = model.encoder.layers[network.layers.index(norm)]
    assert np.abs(ops.convert_to_numpy(online.moving_mean) - mean).max() > 1e-3


def test_one_view_is_refused():
    with pytest.raises(ValueError, match="2 views"):
        byol(augmenter=ViewAugmenter([View(28)]))
