"""LARS against NumPy, and the warmup-cosine schedule."""

import math

import keras
import numpy as np
import pytest

from kerassl.optimizers import LARS, AdamW, multi_tensor, warmup_cosine
from tests.backends import count_kernels, count_waits, once


def numpy_lars(w, m, g, rate, momentum, decay, eta):
    if w.ndim > 1:
        u = g + decay * w
        trust = eta * np.linalg.norm(w) / np.linalg.norm(u)
    else:
        u, trust = g, 1.0
    m = momentum * m - rate * trust * u
    return w + m, m


def test_lars_is_the_papers():
    rng = np.random.default_rng(0)
    values = [rng.normal(size=s).astype("float32") for s in [(4, 3), (3,)]]
    variables = [keras.Variable(v) for v in values]
    optimizer = LARS(0.5, momentum=0.9, weight_decay=0.1)
    slots = [np.zeros_like(v) for v in values]
    for _ in range(4):
        grads = [rng.normal(size=v.shape).astype("float32") for v in values]
        optimizer.apply(
            [keras.ops.convert_to_tensor(g) for g in grads], variables
        )
        for i, g in enumerate(grads):
            values[i], slots[i] = numpy_lars(
                values[i], slots[i], g, 0.5, 0.9, 0.1, 0.001
            )
    for variable, value in zip(variables, values):
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(variable), value, rtol=2e-5, atol=1e-6
        )


@once
@pytest.mark.parametrize("make,kernels,waits", [(LARS, 40, 1), (AdamW, 46, 4)])
def test_variables_add_neither_kernels_nor_waits(make, kernels, waits):
    def counts(count):
        ones = np.ones((2, 2), "float32")
        variables = [keras.Variable(ones) for _ in range(count)]
        gradients = [keras.ops.ones((2, 2)) for _ in range(count)]
        rate = warmup_cosine(0.1, total_steps=10, warmup_steps=2)
        optimizer = make(rate, weight_decay=0.1)
        optimizer.apply(gradients, variables)

        def step():
            optimizer.apply(gradients, variables)

        return count_kernels(step), count_waits(step)

    assert counts(9) == counts(3)
    # Keras counts its steps with numbers of the host.
    assert counts(9)[0] <= kernels and counts(9)[1] <= waits


class OneByOne(LARS):
    """LARS without its own way on PyTorch."""

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        for gradient, variable in zip(grads, trainable_variables):
            self.update_step(gradient, variable, learning_rate)


@once
@pytest.mark.parametrize(
    "settings",
    [
        dict(weight_decay=0.01, bias_rate_scale=0.02),
        dict(weight_decay=0.01, bias_rate_scale=0.02, dtype="float64"),
        dict(exclude_bias_and_norm=False, clipnorm=1.0),
        dict(gradient_accumulation_steps=2, use_ema=True),
        dict(global_clipnorm=0.1, is_scaled=True, weight_decay=0.01),
    ],
)
def test_lars_moves_all_variables_as_it_moves_each(settings):
    settings = dict(settings)
    dtype = settings.pop("dtype", "float32")
    is_scaled = settings.pop("is_scaled", False)
    shapes = [(3, 3, 4, 8), (8,), (40, 70), (), (1, 1, 2000, 3), (2, 2), (5,)]
    found = []
    for make in (LARS, OneByOne):
        rng = np.random.default_rng(0)
        variables = [
            keras.Variable(rng.normal(size=shape), dtype=dtype, name="kernel")
            for shape in shapes
        ]
        variables[5].assign(np.zeros((2, 2)))
        # One in another order of memory, as convolutions like it.
        order = variables[0].value.data.permute(3, 2, 0, 1).contiguous()
        variables[0].value.data = order.permute(2, 3, 1, 0)
        optimizer = make(warmup_cosine(0.3, 10, 2), **settings)
        if is_scaled:
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        optimizer.build(variables)
        for _ in range(5):
            gradients = [
                keras.ops.cast(rng.normal(size=shape), dtype)
                for shape in shapes
            ]
            gradients[6] = None  # A variable that the loss doesn't use.
            with pytest.warns(UserWarning, match="Gradients do not exist"):
                optimizer.apply(gradients, variables)
        found.append([*variables, *optimizer.variables])
    for a, b in zip(*found):
        a, b = keras.ops.convert_to_numpy(a), keras.ops.convert_to_numpy(b)
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


@once
@pytest.mark.parametrize("momentum", [0.0, 0.5])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_parameters_of_any_precision_move(dtype, momentum):
    make = keras.ops.full
    parameter, gradient = make((5, 33), 1.0, dtype), make((5, 33), 2.0, dtype)
    velocities = [make((5, 33), 4.0, dtype)] if momentum else None
    multi_tensor.move(
        [parameter], [gradient], velocities, momentum=momentum, rate=0.25
    )
    found = keras.ops.convert_to_numpy(keras.ops.cast(parameter, "float32"))
    np.testing.assert_array_equal(found, 0.0 if momentum else 0.5)


def test_lars_zero_norms_stay_finite():
    variable = keras.Variable(np.zeros((2, 2), "float32"))
    optimizer = LARS(1.0)
    optimizer.apply([keras.ops.zeros((2, 2))], [variable])
    optimizer.apply([keras.ops.ones((2, 2))], [variable])
    assert np.isfinite(keras.ops.convert_to_numpy(variable)).all()


def test_lars_takes_large_gradients_in_float16():
    variable = keras.Variable(np.ones((64, 64)), dtype="float16", name="kernel")
    optimizer = LARS(1.0, momentum=0.0, trust_coefficient=0.01)
    gradient = keras.ops.full((64, 64), 1000.0, "float16")
    optimizer.apply([gradient], [variable])
    # 0.01 of the weights' length, whatever the gradient's.
    moved = keras.ops.convert_to_numpy(variable)
    np.testing.assert_allclose(moved, 0.99, rtol=2e-3)


def test_lars_knows_the_biases_of_attention():
    """Biases of attention have rank 2."""
    layer = keras.layers.MultiHeadAttention(2, 4)
    layer.build((None, 5, 6), (None, 5, 6))
    biases = [v for v in layer.trainable_variables if v.name == "bias"]
    assert max(len(v.shape) for v in biases) == 2
    optimizer = LARS(0.5, momentum=0.0, weight_decay=0.1)
    for _ in range(2):
        optimizer.apply(
            [keras.ops.ones(v.shape) for v in layer.trainable_variables],
            layer.trainable_variables,
        )
    for bias in biases:
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(bias), -1.0, rtol=1e-6
        )


def test_lars_can_treat_all_alike():
    variable = keras.Variable(np.full((4,), 2.0, "float32"))
    optimizer = LARS(1.0, exclude_bias_and_norm=False, trust_coefficient=0.01)
    optimizer.apply([keras.ops.ones((4,))], [variable])
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(variable), 2.0 - 0.01 * 2.0, rtol=1e-5
    )


@pytest.mark.parametrize("exclude", [True, False])
def test_lars_can_slow_biases(exclude):
    rng = np.random.default_rng(0)
    values = [rng.normal(size=s).astype("float32") for s in [(4, 3), (3,), ()]]
    gradients = [rng.normal(size=v.shape).astype("float32") for v in values]
    moves = []
    for scale in (1.0, 0.024):
        variables = [keras.Variable(v) for v in values]
        optimizer = LARS(
            0.5, bias_rate_scale=scale, exclude_bias_and_norm=exclude
        )
        for _ in range(3):
            optimizer.apply(
                [keras.ops.convert_to_tensor(g) for g in gradients], variables
            )
        moves.append(
            [
                keras.ops.convert_to_numpy(variable) - value
                for variable, value in zip(variables, values)
            ]
        )
    for full, slow, value in zip(*moves, values):
        share = 0.024 if exclude and value.ndim < 2 else 1.0
        np.testing.assert_allclose(slow, share * full, rtol=1e-3, atol=1e-6)
    again = LARS.from_config(optimizer.get_config())
    assert again.bias_rate_scale == 0.024


def test_lars_config_round_trip():
    optimizer = LARS(warmup_cosine(0.3, 10, 2), weight_decay=1e-4)
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(optimizer)
    )
    assert again.get_config() == optimizer.get_config()


@pytest.mark.parametrize(
    "wrong",
    [
        dict(momentum=1.0),
        dict(weight_decay=-1.0),
        dict(bias_rate_scale=0.0),
    ],
)
def test_lars_refuses(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LARS(**wrong)


def test_warmup_cosine_is_simclrs():
    rate = warmup_cosine(0.8, total_steps=110, warmup_steps=10, final=0.08)
    for step in range(0, 111, 5):
        if step < 10:
            expected = 0.8 * step / 10
        else:
            done = (step - 10) / 100
            expected = 0.08 + 0.72 * 0.5 * (1 + math.cos(math.pi * done))
        assert float(rate(step)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("warmup", [0, 10])
def test_warmup_cosine_is_kerass(warmup):
    rate = warmup_cosine(0.8, 110, warmup_steps=warmup, final=0.08)
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(rate)
    )
    kerass = keras.optimizers.schedules.CosineDecay(**rate.get_config())
    for step in (0, 5, 10, 50, 109, 200):
        assert float(again(step)) == pytest.approx(
            float(kerass(step)), abs=1e-7
        )


def test_no_warmup_starts_at_the_peak():
    assert float(warmup_cosine(0.8, 100)(0)) == pytest.approx(0.8)


@pytest.mark.parametrize(
    "wrong",
    [
        dict(total_steps=10, warmup_steps=10),
        dict(total_steps=0),
        dict(total_steps=10, final=1.0),
    ],
)
def test_warmup_cosine_refuses(wrong):
    with pytest.raises(ValueError):
        warmup_cosine(0.5, **wrong)
