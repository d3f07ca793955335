"""Separate learning rates for parts of a model."""

import warnings

import keras
import numpy as np
import pytest
from keras import ops

from kerassl.layers import MLPHead, MomentumNetwork
from kerassl.networks import all_layers
from kerassl.optimizers import (
    LARS,
    Delayed,
    warmup_cosine,
    with_learning_rates,
)
from tests.backends import more
from tests.contracts.methods import METHODS, byol, simsiam, tiny_encoder


def schedule():
    return warmup_cosine(0.5, total_steps=10, warmup_steps=2)


def dense(name, **kwargs):
    layer = keras.layers.Dense(2, name=name, **kwargs)
    layer.build((None, 3))
    return layer


def head(name):
    layer = MLPHead((3, 2), name=name)
    layer.build((None, 3))
    return layer


class Outer(keras.layers.Layer):
    """A layer whose variables' paths start with its name."""

    def __init__(self, name):
        super().__init__(name=name)
        self.parts = [
            MLPHead((3, 2), name="predictor"),
            keras.layers.Dense(2, name="other"),
        ]

    def build(self, input_shape):
        for part in self.parts:
            part.build(input_shape)


def constant(rate):
    """A constant schedule: rates may be floats or schedules."""
    return keras.optimizers.schedules.PiecewiseConstantDecay([100], [rate, 9.0])


def values(variables):
    return [ops.convert_to_numpy(v) for v in variables]


def rates_by_variable(optimizer, variables, steps=4):
    """Applies gradients of 1, and returns each variable's moves by step."""
    moves = []
    for _ in range(steps):
        before = values(variables)
        optimizer.apply([ops.ones(v.shape) for v in variables], variables)
        step = [b - a for a, b in zip(values(variables), before)]
        for move in step:
            np.testing.assert_allclose(move, move.ravel()[0], atol=1e-6)
        moves.append([float(move.ravel()[0]) for move in step])
    return np.transpose(moves)


def test_it_is_sgd_with_momentum_by_hand():
    rng = np.random.default_rng(0)
    layers = [dense("encoder"), dense("predictor"), dense("projector")]
    rate = schedule()
    optimizer = with_learning_rates(
        keras.optimizers.SGD(rate, momentum=0.9),
        {"predictor": 0.125, "projector": constant(0.25)},
    )
    variables = [v for layer in layers for v in layer.trainable_variables]
    expected = [v.astype(float) for v in values(variables)]
    slots = [np.zeros_like(v) for v in expected]
    rates = {"encoder": None, "predictor": 0.125, "projector": 0.25}
    for step in range(6):
        gradients = [rng.normal(size=v.shape) for v in expected]
        optimizer.apply(
            [ops.convert_to_tensor(g.astype("float32")) for g in gradients],
            variables,
        )
        for i, variable in enumerate(variables):
            own = rates[variable.path.split("/")[0]]
            own = float(rate(step)) if own is None else own
            slots[i] = 0.9 * slots[i] - own * gradients[i]
            expected[i] += slots[i]
        for found, value in zip(values(variables), expected):
            np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-6)


def test_only_the_named_layer_is_caught():
    layers = [
        dense("predictor_2"),
        dense("my_predictor"),
        dense("predictors"),
        head("predictor"),
        Outer("model"),
    ]
    layers[-1].build((None, 3))
    variables = [v for layer in layers for v in layer.trainable_variables]
    moves = rates_by_variable(
        with_learning_rates(
            keras.optimizers.SGD(schedule()), {"predictor": 0.125}
        ),
        variables,
    )
    falling = [float(schedule()(step)) for step in range(4)]
    caught = [f"/{v.path}".count("/predictor/") for v in variables]
    assert sum(caught) == 8  # Four per head: two kernels, scale and offset.
    for own, is_caught in zip(moves, caught):
        expected = [0.125] * 4 if is_caught else falling
        np.testing.assert_allclose(own, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["block(1)", "stem+", "abc|abd"])
def test_a_name_is_no_pattern(name):
    layers = [dense(name), dense("abc")]
    variables = [v for layer in layers for v in layer.trainable_variables]
    moves = rates_by_variable(
        with_learning_rates(keras.optimizers.SGD(0.5), {name: 0.125}),
        variables,
        1,
    )
    np.testing.assert_allclose(moves[:, 0], [0.125, 0.125, 0.5, 0.5], atol=1e-6)


@pytest.mark.parametrize(
    "optimizer",
    [
        keras.optimizers.SGD(0.5, momentum=0.5, nesterov=True, clipnorm=1.0),
        keras.optimizers.AdamW(0.5, weight_decay=0.1, beta_2=0.9),
        LARS(0.5, momentum=0.5, weight_decay=0.1),
    ],
    ids=lambda optimizer: optimizer.name,
)
def test_parts_differ_in_the_rate_alone(optimizer):
    multi = with_learning_rates(optimizer, {"predictor": 0.125})
    configs = [part.get_config() for part in multi.optimizers]
    assert sorted(c["learning_rate"] for c in configs) == [0.125, 0.5]
    for config in configs:
        del config["learning_rate"], config["name"]
    assert configs[0] == configs[1]


def test_parts_keep_the_scale_of_the_loss():
    optimizer = keras.optimizers.SGD(0.5, loss_scale_factor=8.0)
    multi = with_learning_rates(optimizer, {"predictor": 0.125})
    again = keras.optimizers.deserialize(keras.optimizers.serialize(multi))
    for one in (multi, again):
        assert float(one.scale_loss(1.0)) == 8.0
        assert [part.loss_scale_factor for part in one.optimizers] == [8.0] * 2
    assert optimizer.loss_scale_factor == 8.0


# === In a model ===


def make(momentum=0.9, **compile_arguments):
    model = simsiam(tiny_encoder())
    rate = warmup_cosine(0.05, total_steps=8)
    model.compile(
        with_learning_rates(
            keras.optimizers.SGD(rate, momentum=momentum), {"predictor": 0.05}
        ),
        **compile_arguments,
    )
    return model


def fit(model, images, epochs=1):
    history = model.fit(
        images, batch_size=16, epochs=epochs, verbose=0, shuffle=False
    )
    assert np.isfinite(history.history["loss"]).all()
    return history.history["loss"]


def test_the_predictor_moves_on_when_the_rest_stands(images):
    model = make(momentum=0.0)
    fit(model, images, epochs=2)
    # The schedule has ended at 0.
    before = values(model.trainable_variables)
    fit(model, images)
    for variable, a, b in zip(
        model.trainable_variables, before, values(model.trainable_variables)
    ):
        moves = np.abs(a - b).max() > 0
        assert moves == ("predictor" in variable.path), variable.path


def test_a_saved_run_goes_on(images, tmp_path):
    model = make()
    fit(model, images)
    model.save(tmp_path / "run.keras")
    again = keras.saving.load_model(tmp_path / "run.keras")
    assert type(again.optimizer) is type(model.optimizer)
    steps = [int(part.iterations) for part in again.optimizer.optimizers]
    assert steps == [4, 4] and int(again.optimizer.iterations) == 4
    for a, b in zip(
        values(model.optimizer.variables), values(again.optimizer.variables)
    ):
        np.testing.assert_array_equal(a, b)
    here, there = fit(model, images, 3), fit(again, images, 3)
    assert here == pytest.approx(there, rel=1e-6)
    for a, b in zip(values(model.variables), values(again.variables)):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    "policy",
    [
        "mixed_float16",
        pytest.param("mixed_bfloat16", marks=more("mixed_float16")),
    ],
)
def test_mixed_precision(images, tmp_path, policy):
    keras.config.set_dtype_policy(policy)
    model = make()
    before = values(model.trainable_variables)
    fit(model, images, epochs=2)
    moved = [
        np.abs(a - b).max() > 0
        for a, b in zip(before, values(model.trainable_variables))
    ]
    assert all(moved)
    optimizer = model.optimizer
    if policy == "mixed_float16":
        assert isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        optimizer = optimizer.inner_optimizer
    assert isinstance(optimizer, keras.optimizers.MultiOptimizer)
    assert [int(part.iterations) for part in optimizer.optimizers] == [8, 8]
    model.save(tmp_path / "run.keras")
    again = keras.saving.load_model(tmp_path / "run.keras")
    assert type(again.optimizer) is type(model.optimizer)
    assert fit(model, images) == pytest.approx(fit(again, images), rel=1e-3)


def test_jit_compile_and_steps_per_execution(images):
    if keras.backend.backend() == "torch":
        pytest.skip("Inductor takes a minute; Keras allows 1 step on PyTorch.")
    model = make(jit_compile=True, steps_per_execution=2)
    fit(model, images)
    steps = [int(part.iterations) for part in model.optimizer.optimizers]
    assert steps == [4, 4]


def test_gradient_accumulation_is_refused():
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    with pytest.raises(ValueError, match="gradient_accumulation_steps"):
        with_learning_rates(optimizer, {"predictor": 0.1})


def test_a_name_in_no_path_is_told():
    """The encoder's own is in none; its variables may be given."""
    model = simsiam(tiny_encoder())
    variables = model.trainable_variables
    for name in ("encoder", "predicter"):
        optimizer = with_learning_rates(keras.optimizers.SGD(0.1), {name: 0.0})
        with pytest.warns(UserWarning, match=f"rate of '{name}' has no effect"):
            optimizer.build(variables)
    known = model.encoder.trainable_variables
    parts = {"encoder": known, "empty": []}
    optimizer = with_learning_rates(
        keras.optimizers.SGD(0.1), dict.fromkeys(parts, 0.0), parts
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        (moves,) = rates_by_variable(optimizer, variables, 1).T
    frozen = [any(v is x for x in known) for v in variables]
    np.testing.assert_allclose(moves, np.where(frozen, 0, 0.1), atol=1e-6)


@pytest.mark.parametrize(
    "scale, dtype", [(None, "float32"), (8.0, "float32"), (None, "float16")]
)
def test_gradients_are_clipped_by_their_common_norm(scale, dtype):
    layers = [dense(name, dtype=dtype) for name in ("encoder", "predictor")]
    variables = [v for layer in layers for v in layer.trainable_variables]
    optimizer = with_learning_rates(
        keras.optimizers.SGD(1.0, global_clipnorm=5.0), {"predictor": 1.0}
    )
    optimizer.loss_scale_factor = scale
    before = values(variables)
    for size, norm in ((300.0, 5.0), (0.1, 0.4)):  # 16 entries.
        gradient = size * (scale or 1)
        optimizer.apply(
            [ops.full(v.shape, gradient, v.dtype) for v in variables],
            variables,
        )
        moves = [a - b for a, b in zip(before, values(variables))]
        found = np.sqrt(sum(np.square(move).sum() for move in moves))
        rounding = 1e-2 if dtype == "float16" else 1e-4
        assert found == pytest.approx(norm, rel=rounding)
        before = values(variables)


# === Parts of an encoder ===


def test_a_delayed_rate_begins_at_its_start():
    rate = schedule()
    delayed = Delayed(rate, 3)
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(delayed)
    )
    for each in (delayed, again):
        found = [float(each(step)) for step in range(8)]
        expected = [0.0] * 3 + [float(rate(step)) for step in range(5)]
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert [float(Delayed(0.5, 2)(step)) for step in range(4)] == [
        0,
        0,
        0.5,
        0.5,
    ]
    with pytest.raises(ValueError, match="at least 0. Received: -1"):
        Delayed(0.5, -1)


def test_parts_are_their_variables():
    """A head's layer of the same name isn't one of the encoder's."""
    layers = [dense("same"), Outer("head")]
    layers[1].build((None, 3))
    inner = layers[1].parts[1]
    variables = [v for layer in layers for v in layer.trainable_variables]
    part = inner.trainable_variables
    optimizer = with_learning_rates(
        keras.optimizers.SGD(0.5), {"some": 0.0}, {"some": part}
    )
    (moves,) = rates_by_variable(optimizer, variables, 1).T
    caught = [any(v is x for x in part) for v in variables]
    np.testing.assert_allclose(moves, np.where(caught, 0, 0.5), atol=1e-6)
    assert sum(caught) == 2


def test_a_frozen_encoder_is_thawed_by_schedule(images, tmp_path):
    """Without another compilation, and its momentum network follows."""
    model = byol(tiny_encoder(), copy_weights=True)
    parts = {"encoder": model.encoder.trainable_variables}
    rate = Delayed(0.05, 3)
    model.compile(
        with_learning_rates(
            keras.optimizers.SGD(0.05, momentum=0.9), {"encoder": rate}, parts
        )
    )
    networks = (model.encoder, model.momentum_encoder)
    start = [values(network.weights)[0] for network in networks]
    step = {"batch_size": 16, "verbose": 0, "shuffle": False}
    model.fit(images[:48], **step)
    for network, old in zip(networks, start):
        np.testing.assert_array_equal(values(network.weights)[0], old)
    model.save(tmp_path / "run.keras")
    again = keras.saving.load_model(tmp_path / "run.keras")
    for each in (model, again):
        each.fit(images[:32], **step)
    for a, b in zip(values(model.variables), values(again.variables)):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)
    for network, old in zip(networks, start):
        assert np.abs(values(network.weights)[0] - old).max() > 0


@pytest.mark.parametrize("name", ["moco_v2", "moco_v3", "byol", "dino"])
def test_every_momentum_network_follows_what_is_thawed(images, name):
    """Whether by schedule, or made with a frozen encoder."""
    if keras.backend.backend() != "torch":
        pytest.skip("The test above covers schedules on every backend.")
    for by_schedule in (True, False):
        encoder = tiny_encoder()
        encoder.trainable = by_schedule
        model = METHODS[name](encoder)
        encoder.trainable = True
        optimizer = keras.optimizers.SGD(0.05)
        if by_schedule:
            parts = {"encoder": encoder.trainable_variables}
            rates = {"encoder": Delayed(0.05, 1)}
            optimizer = with_learning_rates(optimizer, rates, parts)
        model.compile(optimizer)
        copies = [
            layer.network
            for layer in all_layers(model)
            if isinstance(layer, MomentumNetwork)
            and layer.network.name == encoder.name
        ]
        assert copies
        before = [values(x.weights)[0] for x in (encoder, *copies)]
        fit(model, images)
        for network, old in zip((encoder, *copies), before, strict=True):
            assert np.abs(values(network.weights)[0] - old).max() > 0
