"""Tests specific to SwAV."""

import math
import warnings

import keras
import numpy as np
import pytest
from keras import ops
from scipy.special import log_softmax

import kerassl
from kerassl.augmentation import View, ViewAugmenter
from tests.contracts.methods import tiny_encoder


def views_of(*sizes):
    return ViewAugmenter([View(size, blur=0.0) for size in sizes])


def swav(sizes=(28, 28), encoder=None, optimizer=None, **kwargs):
    settings = dict(
        num_prototypes=12,
        hidden_dim=16,
        projection_dim=8,
        freeze_prototypes_steps=0,
        augmenter=views_of(*sizes),
    )
    model = kerassl.SwAV(encoder or tiny_encoder(), **(settings | kwargs))
    model.compile(optimizer or keras.optimizers.SGD(0.1))
    return model


def made_views(model, images):
    """Ready-made views, so that a step is repeatable."""
    x = images.astype("float32")
    return {
        # Corners, every second one mirrored, each darker than the last.
        name: np.ascontiguousarray(
            x[:, -size:, -size:][:, :, :: (-1) ** i] * (1 - 0.1 * i)
        )
        for i, (name, size) in enumerate(model.augmenter.sizes.items())
    }


def test_scores_are_float32_in_half_precision(images):
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = swav()
    outputs = model.forward_views(tensors(made_views(model, images[:8])))
    z = ops.cast(outputs["view_1"], "bfloat16")
    scores = ops.convert_to_numpy(model.prototypes(z))
    exact = ops.convert_to_numpy(ops.cast(z, "float32"))
    vectors = ops.convert_to_numpy(model.prototypes.vectors)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, exact @ vectors, atol=1e-6)


def tensors(views):
    return {name: ops.convert_to_tensor(view) for name, view in views.items()}


def sinkhorn(scores, epsilon=0.05, iterations=3):
    """The paper's listing, for scores of shape (N, K)."""
    q = np.exp(scores / epsilon).T
    q /= q.sum()
    for _ in range(iterations):
        q /= q.sum(axis=1, keepdims=True) * len(q)
        q /= q.sum(axis=0, keepdims=True) * q.shape[1]
    return (q * q.shape[1]).T


def by_hand(model, outputs, queues=(None, None)):
    """The loss of the outputs, in NumPy."""
    vectors = ops.convert_to_numpy(model.prototypes.vectors).astype("float64")
    scores = [
        ops.convert_to_numpy(outputs[name]).astype("float64") @ vectors
        for name in model.augmenter.view_names
    ]
    losses = []
    for i, queue in enumerate(queues):
        assigned = scores[i]
        if queue is not None:
            assigned = np.concatenate([queue @ vectors, assigned])
        assignment = sinkhorn(assigned, model.epsilon)[-len(scores[i]) :]
        others = [
            -np.mean(np.sum(assignment * log_softmax(s / 0.1, axis=1), axis=1))
            for v, s in enumerate(scores)
            if v != i
        ]
        losses.append(np.mean(others))
    return np.mean(losses)


def norms(model):
    return np.linalg.norm(
        ops.convert_to_numpy(model.prototypes.vectors), axis=0
    )


@keras.saving.register_keras_serializable(package="tests")
class Watched(keras.layers.Layer):
    """Keeps the shapes that come by."""

    seen: list = []

    def call(self, inputs):
        Watched.seen.append(tuple(inputs.shape))
        return inputs


def test_one_encoder_pass_for_each_size_and_one_head_pass(images):
    inputs = keras.Input((28, 28, 1))
    body = tiny_encoder()
    x = Watched()(inputs)
    for layer in body.layers[1:]:
        x = layer(x)
    model = swav((28, 28, 20, 24, 20), keras.Model(inputs, x))
    views = tensors(made_views(model, images[:8]))
    assert [v.shape[1] for v in views.values()] == [28, 28, 20, 24, 20]
    heads = []
    projector = model.projector.call
    model.projector.call = lambda inputs, training: (
        heads.append(tuple(inputs.shape)) or projector(inputs, training)
    )
    Watched.seen.clear()
    model.forward_views(views, training=True)
    assert Watched.seen == [(16, 28, 28, 1), (16, 20, 20, 1), (8, 24, 24, 1)]
    assert heads == [(40, 24)]
    # Each output is the projection of its own view, with norm 1.
    outputs = model.forward_views(views, training=False)
    for name in ("view_2", "view_3", "view_5"):
        encoder = model.encoders_by_size[str(views[name].shape[1])]
        features = encoder(views[name], training=False)
        alone = ops.normalize(projector(features, False), axis=1)
        np.testing.assert_allclose(
            ops.convert_to_numpy(outputs[name]),
            ops.convert_to_numpy(alone),
            rtol=1e-3,
            atol=1e-4,
        )


@pytest.mark.parametrize("sizes", [(28, 28), (28, 28, 20, 20)])
def test_the_loss_by_hand(images, sizes):
    model = swav(sizes)
    views = made_views(model, images[:16])
    outputs = model.forward_views(tensors(views), training=True)
    expected = by_hand(model, outputs)
    scalars = model.objective(outputs)
    assert float(scalars["loss"]) == pytest.approx(expected, rel=1e-4)
    assert 1 / 12 < float(scalars["prototype_usage"]) <= 1
    logs = model.train_on_batch(views, return_dict=True)
    assert float(logs["loss"]) == pytest.approx(expected, rel=1e-4)


def test_prototypes_stay_frozen_and_then_move_on_the_sphere(images):
    model = swav(freeze_prototypes_steps=2)
    np.testing.assert_allclose(norms(model), 1, rtol=1e-5)
    views = made_views(model, images[:16])
    start = ops.convert_to_numpy(model.prototypes.vectors)
    kernel = model.projector.trainable_variables[0]
    for step in range(4):
        before = ops.convert_to_numpy(kernel)
        model.train_on_batch(views)
        moved = np.abs(ops.convert_to_numpy(model.prototypes.vectors) - start)
        # Normalizing again causes rounding.
        assert (moved.max() > 1e-4) == (step >= 2)
        np.testing.assert_allclose(norms(model), 1, rtol=1e-5)
        assert np.abs(ops.convert_to_numpy(kernel) - before).max() > 0
    assert int(model.steps) == 4
    outputs = model.predict(images[:24], batch_size=16, verbose=0)
    assert outputs["view_1"].shape == (24, 8)


def test_the_queue_fills_from_its_step_on_and_works_once_full(images):
    model = swav(
        queue_size=40,
        queue_start_step=2,
        # Only the queues change.
        optimizer=keras.optimizers.SGD(0.0),
    )
    filled, differences = [], []
    for step in range(6):
        views = made_views(model, images[8 * step : 8 * step + 16])
        queues = [ops.convert_to_numpy(q.features) for q in model.queues]
        outputs = model.forward_views(tensors(views), training=True)
        for queue, features in zip(model.queues, queues):
            queue.features.assign(features)
        without = by_hand(model, outputs)
        with_queues = by_hand(model, outputs, queues)
        expected = with_queues if step == 5 else without
        differences.append(abs(with_queues - without))
        loss = model.train_on_batch(views)
        model.reset_metrics()
        assert float(np.ravel(loss)[0]) == pytest.approx(expected, rel=1e-4)
        after = [ops.convert_to_numpy(q.features) for q in model.queues]
        filled.append(int(np.any(after[0] != 0, axis=1).sum()))
        for i, name in enumerate(("view_1", "view_2")):
            # The newest come first, and each view has its own queue.
            np.testing.assert_array_equal(after[i][16:], queues[i][:-16])
            if step >= 2:
                np.testing.assert_allclose(
                    after[i][:16],
                    ops.convert_to_numpy(outputs[name]),
                    rtol=1e-3,
                    atol=1e-5,
                )
    assert filled == [0, 0, 16, 32, 40, 40]
    assert differences[5] > 1e-3
    scores = model.evaluate(views, verbose=0, return_dict=True)
    assert np.isfinite(scores["loss"])
    for queue, features in zip(model.queues, after):
        np.testing.assert_array_equal(
            ops.convert_to_numpy(queue.features), features
        )


def test_the_monitor_warns_when_the_loss_stays_at_chance(images):
    model = swav(temperature=1e3, optimizer=keras.optimizers.SGD(0.0))

    def fit(epochs):
        monitor = kerassl.callbacks.CollapseMonitor(images)
        return model.fit(
            images,
            batch_size=32,
            epochs=epochs,
            verbose=0,
            callbacks=[monitor],
        ).history["loss"]

    with pytest.warns(UserWarning, match="loss of SwAV.*smaller `epsilon`"):
        losses = fit(2)
    assert losses == pytest.approx([math.log(12)] * 2, rel=1e-3)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*The loss of SwAV")
        # One epoch proves nothing, and neither do frozen prototypes.
        fit(1)
        model.freeze_prototypes_steps = 100
        fit(3)
        model.freeze_prototypes_steps = 0
    with pytest.warns(UserWarning, match="The loss of SwAV") as warned:
        fit(4)
    assert sum("of SwAV" in str(each.message) for each in warned) == 1


def test_the_monitor_is_silent_when_the_loss_falls(images):
    model = swav(optimizer=keras.optimizers.Adam(0.01))
    monitor = kerassl.callbacks.CollapseMonitor(images)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*The loss of SwAV")
        losses = model.fit(
            images, batch_size=32, epochs=3, verbose=0, callbacks=[monitor]
        ).history["loss"]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    "arguments,message",
    [
        (dict(sizes=(28, 20)), "one size"),
        (dict(sizes=(28,)), "first two views"),
        (dict(epsilon=0.0), "epsilon"),
        (dict(temperature=0.0), "temperature"),
        (dict(sinkhorn_iterations=0), "sinkhorn_iterations"),
        (dict(num_prototypes=0), "positive"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        swav(**arguments)


def test_an_encoder_of_one_size_can_not_take_num_local_crops():
    inputs = keras.Input((28, 28, 1))
    features = keras.layers.Dense(8)(keras.layers.Flatten()(inputs / 255))
    encoder = keras.Model(inputs, features)
    assert list(swav(encoder=encoder).encoders_by_size) == ["28"]
    with pytest.raises(ValueError, match="can't take images of 20x20"):
        swav((28, 28, 20), encoder)


def test_a_batch_beyond_the_queue_is_refused(images):
    model = swav(queue_size=40)
    with pytest.raises(ValueError, match="larger `queue_size`"):
        model.fit(images, batch_size=64, verbose=0)
    assert int(model.optimizer.iterations) == 0
