"""Tests specific to MoCo, versions 1, 2 and 3."""

import keras
import numpy as np
import pytest
from keras import ops
from scipy.special import logsumexp

import kerassl
from kerassl.augmentation import View, ViewAugmenter
from kerassl.layers import CosineMomentum
from tests.contracts.methods import tiny_encoder


def moco(compiled=True, **kwargs):
    settings = dict(projection_dim=8, queue_size=40, momentum=0.75, seed=0)
    model = kerassl.MoCo(tiny_encoder(), **(settings | kwargs))
    if compiled:
        model.compile(keras.optimizers.SGD(0.1))
    return model


def moco_v3(momentum=0.75, **kwargs):
    settings = dict(hidden_dim=16, projection_dim=8, momentum=momentum)
    model = kerassl.MoCoV3(tiny_encoder(), **(settings | kwargs))
    model.compile(keras.optimizers.SGD(0.1))
    return model


def values(variables):
    return [ops.convert_to_numpy(v) for v in variables]


def ready_views(images):
    x = images.astype("float32")
    return {"view_1": x, "view_2": x[:, :, ::-1].copy()}


def tensors(views):
    return {name: ops.convert_to_tensor(view) for name, view in views.items()}


def unit(x):
    x = ops.convert_to_numpy(x).astype("float64")
    # A head without normalization may have rows of zeros.
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def names(head):
    return [w.path.split("/")[-1] for w in head.trainable_weights]


def kernels(head):
    return [tuple(w.shape) for w in head.weights if len(w.shape) == 2]


def follows(pairs, before, momentum):
    """Checks the momentum update of all parameters, and returns them."""
    parameters = []
    for (target, source), old in zip(pairs, before):
        at = target.parameters_at
        assert len(at) == len(source.trainable_weights)
        new = [values(target.network.weights)[i] for i in at]
        online = [values(source.weights)[i] for i in at]
        for a, b, c in zip(old, online, new):
            expected = momentum * a + (1 - momentum) * b
            np.testing.assert_allclose(c, expected, rtol=1e-5, atol=1e-6)
        assert any(np.abs(a - c).max() > 0 for a, c in zip(old, new))
        parameters.append(new)
    return parameters


def both(model):
    return [
        (model.momentum_encoder, model.encoder),
        (model.momentum_projector, model.projector),
    ]


def parameters(pairs):
    return [
        [values(target.network.weights)[i] for i in target.parameters_at]
        for target, _ in pairs
    ]


@pytest.mark.parametrize(
    "version,shapes,temperature",
    [(1, [(24, 8)], 0.07), (2, [(24, 24), (24, 8)], 0.2)],
)
def test_the_heads_of_v1_and_v2(version, shapes, temperature):
    model = moco(compiled=False, version=version)
    assert kernels(model.projector) == shapes
    # No batch normalization, unlike in all later heads.
    assert names(model.projector) == ["kernel", "bias"] * version
    assert len(model.projector.weights) == 2 * version
    assert model.temperature == temperature
    hue = 0.4 if version == 1 else 0.1
    assert {view.hue for view in model.augmenter.views.values()} == {hue}
    assert moco(compiled=False, temperature=0.5).temperature == 0.5


def test_a_step_looks_at_the_old_queue_and_then_takes_the_keys(images):
    model = moco()
    for batch in (images[:16], images[16:32]):
        views = ready_views(batch)
        inputs = tensors(views)
        # The parameters of both are as the last step left them.
        q = unit(
            model.projector(
                model.encoder(inputs["view_1"], training=True), training=True
            )
        )
        k = unit(
            model.momentum_projector(
                model.momentum_encoder(inputs["view_2"], training=True)
            )
        )
        queue = ops.convert_to_numpy(model.queue.features)
        logits = np.concatenate(
            [np.sum(q * k, axis=1, keepdims=True), q @ queue.T], axis=1
        )
        logits /= model.temperature
        logs = model.train_on_batch(views, return_dict=True)
        model.reset_metrics()
        expected = np.mean(logsumexp(logits, axis=1) - logits[:, 0])
        assert float(logs["loss"]) == pytest.approx(expected, rel=1e-4)
        accuracy = np.mean(logits.argmax(axis=1) == 0)
        assert float(logs["contrastive_accuracy"]) == pytest.approx(accuracy)
        after = ops.convert_to_numpy(model.queue.features)
        np.testing.assert_allclose(after[:16], k, rtol=1e-3, atol=1e-5)
        np.testing.assert_array_equal(after[16:], queue[:-16])
    scores = model.evaluate(views, verbose=0, return_dict=True)
    assert np.isfinite(scores["loss"])
    np.testing.assert_array_equal(
        ops.convert_to_numpy(model.queue.features), after
    )


def test_momentum_moves_parameters_alone(images):
    model = moco()
    pairs = both(model)
    before = parameters(pairs)
    online, target = (
        [w for w in network.weights if "moving" in w.path]
        for network in (model.encoder, model.momentum_encoder.network)
    )
    start = values(target)
    for _ in range(2):
        model.train_on_batch(ready_views(images[:16]))
        before = follows(pairs, before, 0.75)
    for old, new, other in zip(start, values(target), values(online)):
        assert np.abs(new - old).max() > 1e-4
        # Its own batches' statistics, not averaged with the encoder's.
        assert np.abs(new - other).max() > 1e-4
        assert np.abs(new - (0.75 * old + 0.25 * other)).max() > 1e-4


@pytest.mark.parametrize(
    "count,batch,settings,message",
    [
        (64, 64, {}, "larger `queue_size`"),
        (64, 4, dict(batch_groups=4), "fewer `batch_groups`"),
        (36, 16, dict(batch_groups=4), "drop the last batch"),
        (33, 16, {}, "single image"),
    ],
)
def test_unfit_batches_are_refused_before_training(
    images, count, batch, settings, message
):
    model = moco(**settings)
    with pytest.raises(ValueError, match=message):
        model.fit(images[:count], batch_size=batch, verbose=0)
    batches = kerassl.data.load("fashion_mnist_small", limit=count)
    with pytest.raises(ValueError, match=message):
        model.fit(batches.batches(batch), verbose=0)
    assert int(model.optimizer.iterations) == 0


def test_batches_need_not_divide_the_queue_or_be_of_equal_groups(images):
    model = moco(batch_groups=4, queue_size=25)
    start = ops.convert_to_numpy(model.queue.features)
    # Groups of 3 and 4 images.
    history = model.fit(images[:28], batch_size=14, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    queue = ops.convert_to_numpy(model.queue.features)
    np.testing.assert_allclose(np.linalg.norm(queue, axis=1), 1, rtol=1e-5)
    assert np.abs(queue - start).max(axis=1).min() > 0


def groups_told_by_statistics(model, count=8, groups=4, size=16):
    """How often a query picks the key of its own group, of equal content.

    Real images, sorted by class, so that groups differ. One picture of each
    class goes once into every group, the same in both views: what tells its
    keys apart is the groups' statistics alone. The share at chance is
    `1 / groups`.
    """
    data = kerassl.data.load("fashion_mnist_small", limit=count * groups * size)
    picked = []
    for start in range(0, len(data.images), groups * size):
        batch = slice(start, start + groups * size)
        order = np.argsort(data.labels[batch], kind="stable")
        views = ready_views(data.images[batch][order])
        same = views["view_1"][::size].copy()
        for view in views.values():
            view.reshape(groups, size, 28, 28, 1)[:, :groups] = same
        outputs = model.forward_views(tensors(views), training=True)
        q, k = (
            unit(outputs[name]).reshape(groups, size, -1)[:, :groups]
            for name in ("query", "key")
        )
        # What an image has in common in all groups carries no information.
        q, k = q - q.mean(axis=0), k - k.mean(axis=0)
        for picture in range(groups):
            nearest = np.argmax(q[:, picture] @ k[:, picture].T, axis=1)
            picked += list(nearest == np.arange(groups))
    return np.mean(picked)


def test_shuffling_hides_the_statistics_that_a_query_shares_with_its_key():
    share = {}
    for is_shuffled in (True, False):
        keras.utils.set_random_seed(1)
        model = moco(compiled=False, batch_groups=4, queue_size=64)
        if not is_shuffled:
            model._shuffled_order = lambda images, training: None
        share[is_shuffled] = groups_told_by_statistics(model)
    # 128 picks, 1 in 4 by chance.
    assert share[False] > 0.55
    assert 0.1 < share[True] < 0.4


def test_shuffled_keys_come_back_in_order(images):
    """Without batch statistics, each key depends on its own image only."""
    encoder = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.AveragePooling2D(7),
            keras.layers.Rescaling(1 / 128),
            keras.layers.Flatten(),
        ]
    )
    inputs = keras.Input((28, 28, 1))
    features = keras.layers.Dense(8)(encoder(inputs))
    model = kerassl.MoCo(
        keras.Model(inputs, features), queue_size=64, batch_groups=4, seed=5
    )
    views = tensors(ready_views(images[:18]))
    order = ops.convert_to_numpy(model._shuffled_order(views["view_2"], True))
    again = ops.convert_to_numpy(model._shuffled_order(views["view_2"], True))
    assert sorted(order) == sorted(again) == list(range(18))
    assert list(order) != list(again) and list(order) != list(range(18))
    outputs = model.forward_views(views, training=True)
    k = model.momentum_projector(model.momentum_encoder(views["view_2"]))
    q = model.projector(model.encoder(views["view_1"]))
    for name, expected in (("query", q), ("key", k)):
        np.testing.assert_allclose(
            *values([outputs[name], expected]), rtol=1e-4, atol=1e-3
        )
    np.testing.assert_allclose(
        ops.convert_to_numpy(model.queue.features)[:18],
        unit(k),
        rtol=1e-4,
        atol=1e-5,
    )


def test_groups_have_batch_statistics_of_their_own(images):
    model = moco(compiled=False, batch_groups=4)
    x = ops.convert_to_tensor(images[:32].astype("float32"))
    found = ops.convert_to_numpy(model._in_groups(model.encoder, x, True))
    for i in range(0, 32, 8):
        group = model.encoder(x[i : i + 8], training=True)
        np.testing.assert_allclose(
            found[i : i + 8],
            ops.convert_to_numpy(group),
            rtol=1e-4,
            atol=1e-5,
        )
    together = ops.convert_to_numpy(model.encoder(x, training=True))
    assert np.abs(together - found).max() > 1e-2
    # Inference has no groups.
    np.testing.assert_allclose(
        *values(
            [
                model._in_groups(model.encoder, x, False),
                model.encoder(x, training=False),
            ]
        ),
        rtol=1e-5,
        atol=1e-6,
    )


@pytest.mark.parametrize("vit_heads", [False, True])
def test_the_heads_of_v3(vit_heads):
    model = moco_v3(vit_heads=vit_heads)
    hidden = [(16, 16)] if vit_heads else []
    assert kernels(model.projector) == [(24, 16), *hidden, (16, 8)]
    assert kernels(model.predictor) == [(8, 16), (16, 8)]
    # Batch normalization at the projector's end without scale and offset.
    assert names(model.projector).count("gamma") == 1 + len(hidden)
    assert names(model.projector).count("beta") == 1 + len(hidden)
    for head, ends_in_norm in (
        (model.projector, True),
        (model.predictor, vit_heads),
    ):
        last = head.stack[-1]
        assert ("bias" not in names(head)) and (
            isinstance(last, keras.layers.BatchNormalization) == ends_in_norm
        )
        if ends_in_norm:
            assert not last.scale and not last.center
    assert names(model.predictor).count("gamma") == 1
    assert model.temperature == 1.0
    # The predictor has no momentum copy.
    copied = [t.network.name for t, _ in both(model)]
    assert copied == [model.encoder.name, "projector"]


def test_v3_compares_both_directions(images):
    model = moco_v3(temperature=0.4)
    views = tensors(ready_views(images[:16]))
    outputs = model.forward_views(views, training=True)
    found = {name: unit(value) for name, value in outputs.items()}
    loss, accuracy = 0.0, []
    for i, j in ((1, 2), (2, 1)):
        logits = found[f"query_{i}"] @ found[f"key_{j}"].T / 0.4
        cross_entropy = logsumexp(logits, axis=1) - np.diag(logits)
        loss += 2 * 0.4 * cross_entropy.mean()
        accuracy.append(np.mean(logits.argmax(axis=1) == np.arange(16)))
    scalars = model.objective(outputs)
    assert float(scalars["loss"]) == pytest.approx(loss, rel=1e-5)
    assert float(scalars["contrastive_accuracy"]) == pytest.approx(
        np.mean(accuracy)
    )
    # Each view has its own passes; keys come from the copies.
    key = model.momentum_projector(
        model.momentum_encoder(views["view_2"], training=True), training=True
    )
    np.testing.assert_allclose(
        *values([outputs["key_2"], key]), rtol=1e-3, atol=1e-4
    )


def test_v3s_momentum_rises_each_step(images):
    schedule = CosineMomentum(0.5, 4)
    model = moco_v3(schedule)
    pairs = both(model)
    before = parameters(pairs)
    for step in (1, 2):
        model.train_on_batch(ready_views(images[:16]))
        assert int(model.optimizer.iterations) == step
        # The authors' code moves the keys' network before step t with the
        # momentum of t; so here after step t - 1. Step 0 would change nothing.
        before = follows(pairs, before, float(schedule(step)))


@pytest.mark.parametrize(
    "method,arguments,message",
    [
        (kerassl.MoCo, dict(version=3), "MoCoV3"),
        (kerassl.MoCo, dict(temperature=0.0), "temperature"),
        (kerassl.MoCo, dict(batch_groups=0), "batch_groups"),
        (kerassl.MoCo, dict(momentum=1.5), "momentum"),
        (kerassl.MoCo, dict(augmenter=ViewAugmenter([View(28)])), "2 views"),
        (kerassl.MoCoV3, dict(temperature=-1.0), "temperature"),
        (kerassl.MoCoV3, dict(augmenter=ViewAugmenter([View(28)])), "2 views"),
    ],
)
def test_bad_arguments_are_refused(method, arguments, message):
    with pytest.raises(ValueError, match=message):
        method(tiny_encoder(), **arguments)
