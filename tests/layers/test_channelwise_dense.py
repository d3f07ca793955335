"""The layer that connects each channel's map to itself."""

import keras
import numpy as np
import pytest
from keras import ops

from kerassl.layers import ChannelwiseDense


def built(shape=(3, 2, 4), **kwargs):
    layer = ChannelwiseDense(**kwargs)
    layer.build((None, *shape))
    layer.bias.assign(np.random.default_rng(1).normal(size=layer.bias.shape))
    return layer


def maps(shape=(3, 2, 4), count=5):
    x = np.random.default_rng(0).normal(size=(count, *shape))
    return x.astype("float32")


def test_it_is_a_dense_layer_for_each_channel():
    layer, x = built(), maps()
    kernel, bias = (ops.convert_to_numpy(w) for w in layer.weights)
    assert kernel.shape == (4, 6, 6) and bias.shape == (4, 1, 6)
    found = ops.convert_to_numpy(layer(x))
    assert found.shape == x.shape == layer.compute_output_shape(x.shape)
    for n in range(5):
        for d in range(4):
            expected = x[n, :, :, d].ravel() @ kernel[d] + bias[d, 0]
            np.testing.assert_allclose(
                found[n, :, :, d].ravel(), expected, rtol=1e-4, atol=1e-5
            )


def test_it_keeps_the_scale():
    layer = ChannelwiseDense()
    found = ops.convert_to_numpy(layer(maps((4, 4, 256))))
    assert found.std() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision(policy):
    layer = built(dtype=policy)
    assert {w.dtype for w in layer.weights} == {"float32"}
    found = layer(maps())
    assert keras.backend.standardize_dtype(found.dtype) == policy[6:]
    single = built()
    single.set_weights(layer.get_weights())
    np.testing.assert_allclose(
        ops.convert_to_numpy(ops.cast(found, "float32")),
        ops.convert_to_numpy(single(maps())),
        atol=0.06,
    )


def test_config_round_trip():
    layer = built(name="mine")
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(layer)
    )
    assert again.get_config() == layer.get_config()


def test_it_works_in_a_graph():
    inputs = keras.Input((3, 2, 4))
    model = keras.Model(inputs, ChannelwiseDense()(inputs))
    assert model.output_shape == (None, 3, 2, 4)
    assert model.predict(maps(), verbose=0).shape == (5, 3, 2, 4)


def test_maps_of_open_size_are_refused():
    with pytest.raises(ValueError, match="known size"):
        ChannelwiseDense().build((None, None, 4, 3))
