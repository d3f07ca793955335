"""What is the context encoder's own."""

import math

import keras
import numpy as np
import pytest
from keras import ops

import kerassl
from kerassl.augmentation import View, ViewAugmenter
from tests.backends import once
from tests.contracts.methods import tiny_encoder


def make(encoder=None, **kwargs):
    settings = dict(bottleneck_dim=16, discriminator_dim=4)
    model = kerassl.ContextEncoder(
        encoder or tiny_encoder(), **(settings | kwargs)
    )
    model.compile(keras.optimizers.SGD(0.1))
    return model


def views_of(model, images, **given):
    """Ready-made views, so that a step is repeatable."""
    made = {"view_1": images.astype("float32")}
    made["mask"] = ops.convert_to_numpy(model.draw(len(images))["mask"])
    return made | given


def tensors(views):
    return {name: ops.convert_to_tensor(view) for name, view in views.items()}


def arrays(outputs):
    return {k: ops.convert_to_numpy(v) for k, v in outputs.items()}


@pytest.mark.parametrize("kind", ["center", "blocks", "region"])
def test_the_loss_by_hand(images, kind):
    model = make(mask=kind, overlap=2, reconstruction_weight=0.9)
    views = views_of(model, images[:8])
    outputs = model.forward_views(tensors(views), training=True)
    found = arrays(outputs)
    part = slice(7, 21) if kind == "center" else slice(0, 28)
    mask, pixels = views["mask"], views["view_1"] / 127.5 - 1
    errors = (found["painted"] - pixels[:, part, part]) ** 2
    squares, weight, ours, plain = 0.0, 0.0, 0.0, 0.0
    for n, y, x in np.ndindex(*mask.shape[:3]):
        near = mask[n, max(0, y - 2) : y + 3, max(0, x - 2) : x + 3]
        w = 1 if mask[n, y, x] else 10 if near.any() else 0
        if not w:
            continue
        # The hole and its band are painted.
        error = float(errors[n, y - part.start, x - part.start, 0])
        squares, weight = squares + w * error, weight + w
        if mask[n, y, x]:
            color = pixels[n][mask[n] == 0].mean()
            ours = ours + error
            plain = plain + float(color - pixels[n, y, x, 0]) ** 2

    def cross_entropy(name, label):
        logits = found[name].astype("float64") * (-1 if label else 1)
        return np.mean(np.log1p(np.exp(logits)))

    own = cross_entropy("real", 1) + cross_entropy("fake", 0)
    expected = {
        "reconstruction_error": squares / weight,
        "relative_error": ours / plain,
        "discriminator_loss": own,
        "loss": 0.9 * squares / weight
        + 0.001 * cross_entropy("adversarial", 1)
        + own,
    }
    scalars = model.objective(outputs)
    assert set(scalars) == set(expected)
    for name, value in expected.items():
        assert float(scalars[name]) == pytest.approx(value, rel=1e-4), name
    logs = model.train_on_batch(views, return_dict=True)
    assert float(logs["loss"]) == pytest.approx(expected["loss"], rel=1e-4)


def moves(model, views, objective=None):
    """The steps of the painter's and of the discriminator's variables."""
    if objective is not None:
        own = kerassl.ContextEncoder.objective
        model.objective = lambda outputs: objective(own(model, outputs))
    before = [ops.convert_to_numpy(v) for v in model.trainable_variables]
    model.train_on_batch(views)
    found = {"painter": [], "discriminator": []}
    for variable, old in zip(model.trainable_variables, before):
        is_judge = "discriminator/" in variable.path
        found["discriminator" if is_judge else "painter"].append(
            (ops.convert_to_numpy(variable) - old).ravel()
        )
    return {name: np.concatenate(parts) for name, parts in found.items()}


def test_each_player_learns_from_its_own_loss_alone(images):
    """With one loss for both, no gradient may cross."""
    weights = make(adversarial_weight=2.0).get_weights()

    def found(objective=None, **kwargs):
        model = make(**({"adversarial_weight": 2.0} | kwargs))
        model.set_weights(weights)
        return moves(model, views_of(model, images[:16]), objective)

    both = found()
    assert all(np.abs(move).max() > 1e-6 for move in both.values())

    def own_alone(scalars):
        return scalars | {"loss": scalars["discriminator_loss"]}

    def without_own(scalars):
        loss = scalars["loss"] - scalars["discriminator_loss"]
        return scalars | {"loss": loss}

    alone = found(own_alone)
    assert np.abs(alone["painter"]).max() == 0
    close(alone["discriminator"], both["discriminator"])
    without = found(without_own)
    assert np.abs(without["discriminator"]).max() == 0
    close(without["painter"], both["painter"])
    # The painter does learn from the discriminator.
    other = found(adversarial_weight=4.0)
    close(other["discriminator"], both["discriminator"])
    difference = np.linalg.norm(other["painter"] - both["painter"])
    assert difference > 1e-3 * np.linalg.norm(both["painter"])


def close(a, b):
    assert np.linalg.norm(a - b) < 1e-4 * np.linalg.norm(b)


def test_the_adversarial_pass_leaves_no_trace(images):
    model = make()
    judge = model.discriminator
    outputs = arrays(
        model.forward_views(tensors(views_of(model, images[:8])), training=True)
    )
    np.testing.assert_allclose(
        outputs["adversarial"], outputs["fake"], rtol=1e-4, atol=1e-5
    )
    # Two passes moved the statistics, and not three.
    moved = [ops.convert_to_numpy(v) for v in judge.non_trainable_variables]
    again = make()
    again.discriminator.set_weights(judge.get_weights())
    for v in again.discriminator.non_trainable_variables:
        v.assign(np.full(v.shape, float("variance" in v.path)))
    for name in ("target", "painted"):
        again.discriminator(outputs[name], training=True)
    assert len(moved) == 2
    for v, expected in zip(again.discriminator.non_trainable_variables, moved):
        np.testing.assert_allclose(
            ops.convert_to_numpy(v), expected, rtol=1e-4, atol=1e-6
        )


def test_the_discriminator_learns_to_tell_paintings(images):
    model = make()
    optimizer = kerassl.optimizers.with_learning_rates(
        keras.optimizers.Adam(0.0), {"discriminator": 0.01}
    )
    model.compile(optimizer)
    painter = [
        v for v in model.trainable_variables if "discriminator/" not in v.path
    ]
    before = [ops.convert_to_numpy(v) for v in painter]
    losses = [
        model.train_on_batch(views_of(model, images), return_dict=True)
        for _ in range(20)
    ]
    assert losses[0]["discriminator_loss"] > 0.5
    assert losses[-1]["discriminator_loss"] < 0.2 * 2 * math.log(2)
    # The name reaches the discriminator, and it alone.
    for old, v in zip(before, painter):
        np.testing.assert_array_equal(ops.convert_to_numpy(v), old)


@once
def test_it_learns_to_paint():
    images = kerassl.data.load("fashion_mnist_small", limit=512).images
    model = make(mask="region", bottleneck_dim=64)
    model.compile(keras.optimizers.Adam(0.005, beta_1=0.5))
    before = model.evaluate(images[:64], verbose=0, return_dict=True)
    model.fit(images, batch_size=32, epochs=12, verbose=0)
    after = model.evaluate(images[:64], verbose=0, return_dict=True)
    assert before["relative_error"] > 1
    assert after["relative_error"] < 0.6


def test_the_hole_is_hidden(images):
    model = make(mask="blocks")
    views = views_of(model, images[:4])
    fed, run = [], model.feature_map.call

    def call(inputs, **kwargs):
        fed.append(ops.convert_to_numpy(inputs))
        return run(inputs, **kwargs)

    model.feature_map.call = call
    painted = arrays(model.forward_views(tensors(views)))["painted"]
    hidden = views["mask"] == 1
    assert np.all(fed[0][hidden] == 127.5)
    assert np.all(fed[0][~hidden] == views["view_1"][~hidden])
    other = np.where(hidden, 255 - views["view_1"], views["view_1"])
    again = model.forward_views(tensors(views | {"view_1": other}))
    np.testing.assert_array_equal(arrays(again)["painted"], painted)


def test_the_hole_has_the_authors_color():
    encoder = kerassl.encoders.build("resnet_nano", (32, 32, 3))
    model = make(encoder)
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), "uint8")
    hidden, mask, _ = model.reconstruct(images).values()
    assert mask.sum() == 2 * 14 * 14
    np.testing.assert_array_equal(
        hidden[:, 9:23, 9:23], np.broadcast_to((117, 104, 123), (2, 14, 14, 3))
    )
    assert np.abs(hidden[:, 8] - images[:, 8]).max() == 0


@pytest.mark.parametrize("size", [18, 28, 32, 40])
@pytest.mark.parametrize("kind", ["center", "region"])
def test_it_paints_the_size_that_is_asked_for(size, kind):
    model = make(tiny_encoder((size, size, 3)), mask=kind)
    # Shapes alone: nothing is computed.
    outputs = model(
        {
            "view_1": keras.Input(batch_shape=(2, size, size, 3)),
            "mask": keras.Input(batch_shape=(2, size, size, 1)),
        }
    )
    painted = size // 2 if kind == "center" else size
    for name, channels in (("painted", 3), ("target", 3), ("weights", 1)):
        assert tuple(outputs[name].shape) == (2, painted, painted, channels)
    assert tuple(outputs["fake"].shape) == (2, 1)
    transposed = [
        layer
        for layer in model.decoder.layers
        if isinstance(layer, keras.layers.Conv2DTranspose)
    ]
    side = model.feature_map.output_shape[1]
    # No layer more than needed.
    assert side * 2 ** len(transposed) >= painted
    assert side * 2 ** (len(transposed) - 1) < painted or len(transposed) == 1


def test_it_takes_a_vit():
    encoder = kerassl.encoders.build("vit_nano", (16, 16, 3))
    model = make(encoder, mask="region")
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), "uint8")
    loss = model.fit(images, verbose=0).history["loss"]
    assert np.isfinite(loss).all()


def test_one_mask_for_each_image_or_for_all():
    for kind in ("blocks", "region"):
        alone, shared = (
            ops.convert_to_numpy(
                make(mask=kind, mask_per_image=each).draw(3)["mask"]
            )
            for each in (True, False)
        )
        assert np.any(alone[0] != alone[1]) and np.any(alone[1] != alone[2])
        assert shared.shape == (3, 28, 28, 1)
        assert np.all(shared == shared[:1]) and shared.any()


def test_without_adversarial_weight_there_is_no_discriminator(images):
    model = make(adversarial_weight=0)
    assert not any("discriminator" in v.path for v in model.variables)
    assert model.metric_names == ("reconstruction_error", "relative_error")
    history = model.fit(images, verbose=0).history
    assert set(history) == {"loss", *model.metric_names}
    assert history["loss"] == pytest.approx(
        [0.999 * history["reconstruction_error"][0]], rel=1e-5
    )
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(model)
    )
    assert again.discriminator is None


def test_reconstruct(images):
    model = make(mask="region")
    state = ops.convert_to_numpy(model.seed_generator.state)
    found = model.reconstruct(images[:5])
    hidden, mask, painted = found.values()
    assert list(found) == ["input", "mask", "reconstruction"]
    hole = np.broadcast_to(mask == 1, images[:5].shape)
    assert 0.15 < hole.mean() < 0.35
    assert np.all(hidden[hole] == 127.5)
    np.testing.assert_array_equal(hidden[~hole], images[:5][~hole])
    np.testing.assert_array_equal(painted[~hole], images[:5][~hole])
    assert np.all(painted >= 0) and np.all(painted <= 255)
    assert {a.dtype.name for a in (hidden, mask, painted)} == {"float32"}
    # The same masks each time, and training's stay as they were.
    np.testing.assert_array_equal(model.reconstruct(images[:5])["mask"], mask)
    np.testing.assert_array_equal(
        ops.convert_to_numpy(model.seed_generator.state), state
    )
    own = np.zeros((5, 28, 28, 1))
    own[:, 3:9, 2:4] = 1
    painted = model.reconstruct(images[:5], own)["reconstruction"]
    outputs = model.forward_views(
        tensors(views_of(model, images[:5], mask=own.astype("float32")))
    )
    expected = 127.5 * (arrays(outputs)["painted"] + 1)
    np.testing.assert_allclose(
        painted[:, 3:9, 2:4], expected[:, 3:9, 2:4], rtol=1e-3, atol=0.01
    )
    with pytest.raises(ValueError, match="255"):
        model.reconstruct(images[:5] / 255)
    with pytest.raises(ValueError, match="28, 28, 1"):
        model.reconstruct(images[:5, :20, :20])


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(mask="centr"), "no mask 'centr'.*center"),
        (dict(overlap=0), "`overlap`"),
        (dict(overlap=7), "`overlap`.*28"),
        (dict(bottleneck_dim=0), "`bottleneck_dim`"),
        (dict(discriminator_dim=0), "`discriminator_dim`"),
        (dict(adversarial_weight=-1.0), "`adversarial_weight`"),
        (dict(augmenter=ViewAugmenter([View(28)] * 2)), "1 views"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        make(**arguments)


def test_a_single_image_is_refused(images):
    with pytest.raises(ValueError, match="batch of 1"):
        make().fit(images[:1], verbose=0)
