"""AdamW: equal to Keras's, except for the variables without decay."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import kerassl
from kerassl.optimizers import AdamW, Ramp, with_learning_rates

# Without gradients, only the decay changes weights: it halves them.
SETTINGS = dict(learning_rate=0.1, weight_decay=5.0)


def moved(optimizer):
    """A transformer's variables after a step without gradients, by path."""
    model = keras.Sequential(
        [
            keras.Input((3, 4)),
            layers.LayerNormalization(),
            layers.Dense(4, bias_initializer="ones"),
        ]
    )
    attention = layers.MultiHeadAttention(2, 2, bias_initializer="ones")
    attention.build((1, 3, 4), (1, 3, 4))
    variables = model.trainable_variables + attention.trainable_variables
    before = [ops.convert_to_numpy(v) for v in variables]
    optimizer.apply([ops.zeros(v.shape) for v in variables], variables)
    ratios = {}
    for old, v in zip(before, variables):
        new = ops.convert_to_numpy(v)
        ratios.setdefault(v.name, []).append(
            float(np.abs(new).sum() / max(np.abs(old).sum(), 1e-9))
        )
    return ratios


def test_biases_and_normalizations_do_not_decay():
    ratios = moved(AdamW(**SETTINGS))
    assert ratios["kernel"] == pytest.approx([0.5] * 5, rel=1e-5)
    assert ratios["bias"] == pytest.approx([1] * 5)
    assert ratios["gamma"] == pytest.approx([1])


def test_layer_scale_does_not_decay():
    encoder = kerassl.encoders.build("dinov2_small", (28, 28, 3))
    optimizer = AdamW(**SETTINGS)
    optimizer.build(encoder.trainable_variables)
    scales = [v for v in encoder.trainable_variables if v.name == "lambda1"]
    assert len(scales) == 24
    assert not any(map(optimizer._use_weight_decay, scales))


def test_it_can_treat_all_alike():
    ratios = moved(AdamW(exclude_bias_and_norm=False, **SETTINGS))
    for name in ("kernel", "bias", "gamma"):
        assert ratios[name] == pytest.approx(
            [0.5] * len(ratios[name]), rel=1e-5
        )


def test_nothing_needs_to_decay():
    """As in a part of a model that is a normalization."""
    layer = layers.LayerNormalization(name="norm_1")
    layer.build((None, 4))
    kernel = keras.Variable(np.ones((4, 4), "float32"), name="kernel")
    variables = [kernel, *layer.trainable_variables]
    optimizer = with_learning_rates(AdamW(**SETTINGS), {"norm_1": 0.5})
    gradients = [ops.zeros((4, 4)), ops.ones((4,)), ops.ones((4,))]
    optimizer.apply(gradients, variables)
    for variable, expected in zip(variables, (0.5, 0.5, -0.5)):
        np.testing.assert_allclose(
            ops.convert_to_numpy(variable), expected, rtol=1e-5
        )


@pytest.mark.parametrize("exclude", [True, False])
def test_it_is_saved(exclude):
    optimizer = AdamW(exclude_bias_and_norm=exclude, beta_2=0.95, **SETTINGS)
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(optimizer)
    )
    assert type(again) is AdamW
    assert again.get_config() == optimizer.get_config()
    ratios = moved(again)
    for name, expected in moved(optimizer).items():
        assert ratios[name] == pytest.approx(expected, rel=1e-5)


def test_it_steps_as_keras_does():
    rng = np.random.default_rng(0)
    start = rng.normal(size=(4, 3)).astype("float32")
    settings = dict(learning_rate=0.01, weight_decay=0.05, beta_2=0.95)
    found = []
    for make in (AdamW, keras.optimizers.AdamW):
        rng = np.random.default_rng(1)
        variable = keras.Variable(start, name="kernel")
        optimizer = make(**settings)
        for _ in range(3):
            gradient = rng.normal(size=(4, 3)).astype("float32")
            optimizer.apply([ops.convert_to_tensor(gradient)], [variable])
        found.append(ops.convert_to_numpy(variable))
    np.testing.assert_allclose(*found, rtol=1e-6, atol=1e-7)


def test_the_decay_follows_a_schedule():
    """Without gradients, step t leaves `1 - rate * decay(t)` of a kernel."""
    optimizer = AdamW(0.1, weight_decay=Ramp(1.0, 5.0, 4, "linear"))
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(optimizer)
    )
    for each in (optimizer, again):
        kernel = keras.Variable(np.ones((2, 2), "float32"), name="kernel")
        expected = 1.0
        for decay in (1.0, 2.0, 3.0, 4.0, 5.0, 5.0):
            each.apply([ops.zeros((2, 2))], [kernel])
            expected *= 1 - 0.1 * decay
            found = ops.convert_to_numpy(kernel)
            np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert again.get_config() == optimizer.get_config()


def test_the_decay_counts_updates():
    """Keras counts batches for learning rates, and kerassl says so."""
    ramp = Ramp(1.0, 5.0, 4, "linear")
    optimizer = AdamW(ramp, ramp, gradient_accumulation_steps=2)
    kernel = keras.Variable(np.ones((2, 2), "float32"), name="kernel")
    for _ in range(4):
        optimizer.apply([ops.zeros((2, 2))], [kernel])
    assert float(optimizer.weight_decay) == 3.0
    assert float(optimizer.learning_rate) == 5.0


@pytest.mark.parametrize(
    "curve,middle", [("linear", 0.13), ("cosine", 0.0927207793)]
)
def test_a_ramp_ends_and_stays(curve, middle):
    ramp = Ramp(0.04, 0.4, 4, curve)
    found = [float(ramp(step)) for step in (0, 1, 2, 4, 9)]
    assert found == pytest.approx([0.04, middle, 0.22, 0.4, 0.4], rel=1e-5)
    again = Ramp.from_config(ramp.get_config())
    assert float(again(1)) == pytest.approx(middle, rel=1e-5)
    with pytest.raises(ValueError, match="curve"):
        Ramp(0.0, 1.0, 5, "square")
    with pytest.raises(ValueError, match="steps"):
        Ramp(0.0, 1.0, 0)
