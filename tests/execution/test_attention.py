"""Attention over an even number of tokens on JAX, as cuDNN needs it.

cuDNN needs a GPU. Here, JAX's own attention stands in for it.
"""

import keras
import numpy as np
import pytest
from keras import layers, ops

import kerassl
from kerassl.execution import lent
from tests.contracts.methods import METHODS, tiny_encoder

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="others take any number"
)


@pytest.fixture
def seen(monkeypatch):
    """What cuDNN is asked for: the numbers of queries and of keys."""
    import jax

    found = []
    attend = jax.nn.dot_product_attention

    def stand_in(query, key, value, implementation, **kwargs):
        if implementation == "cudnn":
            found.append((query.shape[1], key.shape[1]))
        return attend(query, key, value, implementation="xla", **kwargs)

    monkeypatch.setattr(jax.nn, "dot_product_attention", stand_in)
    return found


def gradients(model, x, lend):
    """Returns the output, and the gradients of the input and the weights."""
    import jax

    weights = [weight.value for weight in model.trainable_variables]
    others = [weight.value for weight in model.non_trainable_variables]

    def loss(weights, x):
        y, _ = model.stateless_call(weights, others, x, training=True)
        return ops.sum(y**3), y

    function = jax.value_and_grad(loss, (0, 1), has_aux=True)
    if lend:
        with lent(model):
            (_, y), found = function(weights, x)
    else:
        (_, y), found = function(weights, x)
    return [np.asarray(each) for each in (y, *jax.tree.leaves(found))]


@pytest.mark.parametrize("tokens", [1, 5, 6])
def test_it_computes_the_same(seen, tokens):
    inputs = keras.Input((tokens, 6))
    model = keras.Model(inputs, layers.MultiHeadAttention(2, 4)(inputs, inputs))
    x = np.random.default_rng(0).normal(size=(3, tokens, 6)).astype("float32")
    plain = gradients(model, x, lend=False)
    assert not seen
    for found, expected in zip(gradients(model, x, lend=True), plain):
        # Two units in the last digit of the largest: gradients reach 17.
        rounding = max(1e-6, 2e-7 * np.abs(expected).max())
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=rounding)
    assert seen == [(tokens + 1, tokens + 1)] * (tokens % 2)


@pytest.mark.parametrize(
    "arguments, call",
    [
        ({"dropout": 0.1}, {}),
        ({"use_gate": True}, {}),
        ({}, {"use_causal_mask": True}),
        ({}, {"attention_mask": np.tri(5, dtype="bool")[None]}),
        ({}, {"return_attention_scores": True}),
        ({}, {"training": False}),
    ],
)
def test_anything_else_is_left_to_keras(seen, arguments, call):
    layer = layers.MultiHeadAttention(2, 4, **arguments)
    x = np.ones((2, 5, 6), "float32")
    layer(x, x)
    seen.clear()
    with lent(layer):
        layer(x, x, **{"training": True, **call})
    assert not seen


def test_so_are_masked_tokens_and_disabled_flash_attention(seen, monkeypatch):
    layer = layers.MultiHeadAttention(2, 4)
    tokens = layers.Embedding(3, 6, mask_zero=True)(np.array([[1, 2, 0]]))
    with lent(layer):
        layer(tokens, tokens, training=True)
        assert not seen
        asked = (keras.config, "is_flash_attention_enabled")
        monkeypatch.setattr(*asked, lambda: False)
        layer(ops.ones((2, 5, 6)), ops.ones((2, 5, 6)), training=True)
        assert not seen


def test_where_there_is_no_cudnn_keras_computes(monkeypatch):
    layer = layers.MultiHeadAttention(2, 4)
    x = np.random.default_rng(0).normal(size=(2, 5, 6)).astype("float32")
    expected = layer(x, x, training=True)
    with lent(layer):
        np.testing.assert_array_equal(layer(x, x, training=True), expected)


def steps(model, images):
    return [float(model.train_on_batch(images)[0]) for _ in range(2)]


def test_a_vits_step_asks_for_even_numbers_only(seen, images):
    def made():
        keras.utils.set_random_seed(0)
        model = METHODS["mae"](tiny_encoder())
        model.compile(keras.optimizers.SGD(0.1))
        return model

    losses = steps(made(), images)
    # 4 of 16 patches and a class token in two blocks, 17 in the decoder.
    assert seen == [(6, 6), (6, 6), (18, 18)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kerassl.execution.lend._classes", lambda _: {})
        np.testing.assert_allclose(losses, steps(made(), images), rtol=1e-6)
    assert len(seen) == 3
    kerassl.encoders.embed(made().encoder, images[:4])
    assert len(seen) == 3
