"""What is DINO's own."""

import math

import keras
import numpy as np
import pytest
from keras import ops
from scipy.special import log_softmax, softmax

import kerassl
from kerassl.augmentation import View, ViewAugmenter
from kerassl.encoders.depth import RandomDepth
from kerassl.methods.views import views_for
from kerassl.networks import all_layers
from kerassl.optimizers import AdamW, Ramp
from tests.contracts.methods import ibot, tiny_encoder, tiny_vit


def views_of(*sizes):
    return ViewAugmenter([View(size, blur=0.0) for size in sizes])


def dino(sizes=(28, 28, 20), encoder=None, optimizer=None, **kwargs):
    settings = dict(
        num_prototypes=12,
        hidden_dim=16,
        projection_dim=8,
        freeze_last_layer_steps=0,
        augmenter=views_of(*sizes),
    )
    model = kerassl.DINO(encoder or tiny_encoder(), **(settings | kwargs))
    model.compile(optimizer or keras.optimizers.SGD(0.1))
    return model


def made_views(model, images):
    """Ready-made views, so that a step is repeatable."""
    x = images.astype("float32")
    return {
        name: np.ascontiguousarray(
            x[:, -size:, -size:][:, :, :: (-1) ** i] * (1 - 0.1 * i)
        )
        for i, (name, size) in enumerate(model.augmenter.sizes.items())
    }


def value(x):
    return ops.convert_to_numpy(x)


def values(variables):
    return [value(v) for v in variables]


def tensors(views):
    return {name: ops.convert_to_tensor(view) for name, view in views.items()}


def test_the_loss_and_the_center_by_hand(images):
    """The loss uses the old center; the new one has both large views."""
    model = dino(teacher_temperature=0.05, center_momentum=0.8)
    old = np.random.default_rng(0).normal(size=12).astype("float32") / 10
    model.center.assign(old)
    views = made_views(model, images[:8])
    outputs = model.forward_views(tensors(views), training=True)
    teacher = [value(outputs[f"teacher_view_{i}"]) for i in (1, 2)]
    losses = []
    for i, logits in enumerate(teacher):
        probabilities = softmax((logits - old) / 0.05, axis=1)
        for v, name in enumerate(model.augmenter.view_names):
            if v != i:
                predicted = log_softmax(value(outputs[name]) / 0.1, axis=1)
                losses.append(-np.mean(np.sum(probabilities * predicted, 1)))
    assert len(losses) == 4
    scalars = model.objective(outputs)
    assert float(scalars["loss"]) == pytest.approx(np.mean(losses), rel=1e-5)
    assert float(scalars["loss"]) == pytest.approx(
        float(scalars["teacher_entropy"] + scalars["teacher_kl"]), rel=1e-5
    )
    mean = np.concatenate(teacher).mean(axis=0)
    np.testing.assert_allclose(
        value(model.center), 0.8 * old + 0.2 * mean, rtol=1e-5, atol=1e-6
    )
    model.forward_views(tensors(views), training=False)
    np.testing.assert_allclose(
        value(model.center), 0.8 * old + 0.2 * mean, rtol=1e-5, atol=1e-6
    )


def small_network(sizes=(28, 28, 20), **kwargs):
    """DINO without batch normalization, and its weights for PyTorch."""
    inputs = keras.Input((28, 28, 1))
    x = keras.layers.Rescaling(1 / 128, offset=-1)(inputs)
    x = keras.layers.Conv2D(16, 7, strides=4, activation="relu")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return dino(sizes, keras.Model(inputs, x), **kwargs)


@pytest.mark.parametrize("train_scale", [False, True])
def test_six_steps_of_the_authors_formulas(images, train_scale):
    """In plain PyTorch, in float64, with the same weights and views."""
    torch = pytest.importorskip("torch")
    if keras.backend.backend() != "torch":
        pytest.skip("compared once")
    from torch.nn import functional

    steps, frozen, rate = 6, 2, 0.003
    model = small_network(
        train_scale=train_scale,
        freeze_last_layer_steps=frozen,
        momentum=kerassl.layers.CosineMomentum(0.9, steps),
        teacher_temperature=Ramp(0.04, 0.07, 4, "linear"),
        optimizer=AdamW(
            rate,
            weight_decay=Ramp(0.04, 0.4, steps),
            clipnorm=0.05,
            epsilon=1e-12,
        ),
    )
    variables = [*model.encoder.weights, *model.projector.weights]
    student, teacher = (
        [
            torch.tensor(value(v), dtype=torch.float64, requires_grad=True)
            for v in variables
        ]
        for _ in range(2)
    )
    last = student[8:]
    others = [p for p in student if not any(p is q for q in last)]
    groups = [
        {"params": [p for p in others if p.ndim > 1], "decays": True},
        {"params": [p for p in others if p.ndim == 1], "decays": False},
        {"params": last, "decays": True, "is_last": True},
    ]
    adam = torch.optim.AdamW(groups, lr=rate, eps=1e-12)

    def forward(weights, view):
        kernel, bias, *dense = weights
        x = torch.tensor(view / 128 - 1, dtype=torch.float64)
        x = x.permute(0, 3, 1, 2)
        x = functional.conv2d(x, kernel.permute(3, 2, 0, 1), bias, stride=4)
        x = functional.relu(x).mean((2, 3))
        for i in (0, 2, 4):
            x = x @ dense[i] + dense[i + 1]
            x = functional.gelu(x) if i < 4 else functional.normalize(x)
        v = dense[6]
        w = v / v.norm(dim=0)
        return x @ (dense[7] * w if len(dense) > 7 else w)

    center = torch.zeros(12, dtype=torch.float64)
    for step in range(steps):
        views = made_views(model, np.roll(images[:16], step, axis=1))
        logs = model.train_on_batch(views, return_dict=True)
        model.reset_metrics()
        large = list(views.values())[:2]
        with torch.no_grad():
            taught = [forward(teacher, view) for view in large]
        tau = 0.04 + 0.03 * min(step / 4, 1)
        total, terms = 0, 0
        predicted = [forward(student, view) / 0.1 for view in views.values()]
        for i, logits in enumerate(taught):
            q = functional.softmax((logits - center) / tau, dim=-1)
            for v, scores in enumerate(predicted):
                if v != i:
                    log_p = functional.log_softmax(scores, dim=-1)
                    total = total - (q * log_p).sum(-1).mean()
                    terms += 1
        loss = total / terms
        assert logs["loss"] == pytest.approx(float(loss), rel=1e-5)
        center = 0.9 * center + 0.1 * torch.cat(taught).mean(0)
        adam.zero_grad()
        loss.backward()
        for p in student:
            p.grad *= min(1.0, 0.05 / (float(p.grad.norm()) + 1e-12))
        turn = (1 - math.cos(math.pi * step / steps)) / 2
        for group in adam.param_groups:
            group["weight_decay"] = group["decays"] * (0.04 + 0.36 * turn)
            is_frozen = group.get("is_last") and step < frozen
            group["lr"] = 0.0 if is_frozen else rate
        adam.step()
        momentum = 0.9 + 0.1 * turn
        with torch.no_grad():
            for p, copy in zip(student, teacher):
                copy.mul_(momentum).add_((1 - momentum) * p)
    np.testing.assert_allclose(value(model.center), center, atol=1e-5)
    mine = [
        *model.encoder.weights,
        *model.projector.weights,
        *model.momentum_encoder.network.weights,
        *model.momentum_projector.network.weights,
    ]
    for found, expected in zip(mine, [*student, *teacher], strict=True):
        np.testing.assert_allclose(
            value(found), expected.detach(), rtol=1e-5, atol=1e-5
        )


@pytest.mark.every_backend
def test_a_frozen_last_layer_neither_moves_nor_decays(images):
    model = dino(
        freeze_last_layer_steps=2,
        optimizer=AdamW(0.01, weight_decay=0.5, clipnorm=3.0),
        train_scale=True,
    )
    views = made_views(model, images[:16])
    last = model.projector.last.weights
    assert [tuple(w.shape) for w in last] == [(8, 12), (12,)]
    first = model.encoder.trainable_variables[0]
    start, before = values(last), value(first)
    for step in range(3):
        model.train_on_batch(views)
        moved = [np.abs(a - b).max() for a, b in zip(start, values(last))]
        assert moved == [0, 0] if step < 2 else min(moved) > 0
        assert np.abs(value(first) - before).max() > 0


@pytest.mark.every_backend
def test_a_new_optimizer_does_not_freeze_the_last_layer_again(images):
    model = dino(freeze_last_layer_steps=2, momentum=0.9)
    views = made_views(model, images[:16])
    for _ in range(4):
        model.train_on_batch(views)
    last = value(model.projector.last.kernel)
    model.compile(keras.optimizers.SGD(1e-4))
    model.train_on_batch(views)
    assert int(model.steps) == 5
    moved = np.abs(value(model.projector.last.kernel) - last).max()
    assert 0 < moved < 1e-3


@pytest.mark.parametrize("method", [kerassl.DINO, kerassl.IBOT, kerassl.DINOv2])
def test_small_views_can_be_split_into_patches(method):
    for size in (128, 96, 64, 48):
        encoder = kerassl.encoders.build("vit_nano", (size, size, 3))
        augmenter = views_for(encoder, method.default_views)
        small = augmenter.sizes["view_3"]
        patch = kerassl.encoders.patch_size(encoder)
        assert patch > 1 and small % patch == 0
        assert abs(small - size * 3 / 7) <= patch / 2
    model = method(encoder, num_prototypes=12, hidden_dim=16)
    assert model.augmenter.sizes == augmenter.sizes


def test_the_teacher_follows_and_is_what_is_used(images, tmp_path):
    model = dino(momentum=Ramp(0.5, 1.0, 4))
    student, teacher = model.encoder, model.feature_encoder
    assert teacher is model.momentum_encoder.network
    at = model.momentum_encoder.parameters_at
    views = made_views(model, images[:16])
    for momentum in (0.5, 0.5 + 0.25 * (1 - math.cos(math.pi / 4))):
        before = [values(teacher.weights)[i] for i in at]
        model.train_on_batch(views)
        for i, old in zip(at, before):
            new, followed = value(teacher.weights[i]), value(student.weights[i])
            expected = momentum * old + (1 - momentum) * followed
            np.testing.assert_allclose(new, expected, rtol=1e-4, atol=1e-6)
    features = value(teacher(ops.convert_to_tensor(images[:4])))
    others = value(student(ops.convert_to_tensor(images[:4])))
    assert np.abs(features - others).max() > 1e-4
    np.testing.assert_allclose(
        model.embed(images[:4]), features, rtol=1e-5, atol=1e-6
    )
    maps = model.embed(images[:4], patches=True)
    np.testing.assert_allclose(
        maps.mean((1, 2)), features, rtol=1e-5, atol=1e-6
    )
    # The statistics of both large views, in one batch.
    assert model.teacher_trains
    if keras.backend.backend() == "torch":
        model.save_to_preset(tmp_path / "preset")
        model.save(tmp_path / "model.keras")
        for saved in ("preset", "model.keras"):
            again = kerassl.load_encoder(tmp_path / saved)
            assert again.trainable_variables
            np.testing.assert_allclose(
                value(again(images[:4])), features, rtol=1e-4, atol=1e-5
            )


def test_dropout_stays_in_the_student(images):
    inputs = keras.Input((28, 28, 1))
    x = keras.layers.Flatten()(inputs / 255)
    x = keras.layers.Dropout(0.5)(keras.layers.Dense(24)(x))
    model = dino((28, 28), keras.Model(inputs, x))
    assert not model.teacher_trains
    views = tensors(made_views(model, images[:8]))
    first, second = (model.forward_views(views, training=True) for _ in "12")
    for name in ("teacher_view_1", "teacher_view_2"):
        np.testing.assert_array_equal(value(first[name]), value(second[name]))
    assert np.abs(value(first["view_1"]) - value(second["view_1"])).max() > 0


def test_views_of_each_size_skip_blocks_of_their_own():
    encoder = tiny_vit(tiny_encoder())
    model = dino((28, 28, 14), encoder, stochastic_depth=0.5)
    first, second = (
        value(keras.random.uniform((8,), seed=layer.seed_generator))
        for network in model.encoders_by_size.values()
        for layer in all_layers(network)
        if isinstance(layer, RandomDepth)
    )
    assert np.abs(first - second).min() > 0


@pytest.mark.parametrize("method", [kerassl.DINO, kerassl.IBOT, kerassl.DINOv2])
@pytest.mark.parametrize("centering", ["mean", "sinkhorn"])
def test_the_advice_names_a_center_where_there_is_one(method, centering):
    model = ibot(tiny_encoder(), method, centering=centering)
    assert ("center_momentum" in model.collapse_advice) == (centering == "mean")


@pytest.mark.parametrize(
    "arguments,message",
    [
        (dict(sizes=(28, 20)), "one size"),
        (dict(sizes=(28,)), "first two views"),
        (dict(student_temperature=0.0), "student_temperature"),
        (dict(teacher_temperature=0.0), "teacher_temperature"),
        (dict(center_momentum=1.5), "center_momentum"),
        (dict(num_prototypes=0), "positive"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        dino(**arguments)
