"""The heads of the joint-embedding family."""

import keras
import numpy as np
import pytest
from keras import ops

from kerassl.layers import MLPHead


def weights_of(**kwargs):
    head = MLPHead((6, 4), **kwargs)
    head.build((None, 5))
    return sorted(tuple(w.shape) for w in head.trainable_weights)


def test_simclr_head_has_no_output_bias():
    # Two kernels, scale and offset of the hidden norm, the output's scale.
    assert weights_of(output_normalization="batch_no_bias") == sorted(
        [(5, 6), (6,), (6,), (6, 4), (4,)]
    )


def test_moco_v2_head_has_biases_and_no_normalization():
    assert weights_of(
        hidden_normalization=False, hidden_bias=True, output_bias=True
    ) == sorted([(5, 6), (6,), (6, 4), (4,)])


def test_affine_free_output():
    assert weights_of(output_normalization="batch_no_affine") == sorted(
        [(5, 6), (6,), (6,), (6, 4)]
    )
    head = MLPHead((4,), output_normalization="batch_no_affine")
    out = ops.convert_to_numpy(head(np.random.randn(64, 5), training=True))
    np.testing.assert_allclose(out.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(out.std(0), 1, atol=1e-2)


def test_moving_statistics_move_only_in_training():
    head = MLPHead((4,), output_normalization="batch")
    x = np.random.randn(32, 5).astype("float32") + 3
    head(x)
    start = [ops.convert_to_numpy(w) for w in head.non_trainable_weights]
    head(x, training=False)
    for before, w in zip(start, head.non_trainable_weights):
        np.testing.assert_array_equal(before, ops.convert_to_numpy(w))
    head(x, training=True)
    after = [ops.convert_to_numpy(w) for w in head.non_trainable_weights]
    assert any(np.abs(a - b).max() > 0.01 for a, b in zip(start, after))


def test_config_round_trip():
    head = MLPHead((6, 4), output_normalization="batch", dtype="mixed_bfloat16")
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(head)
    )
    assert again.get_config() == head.get_config()
    assert tuple(again(np.ones((2, 3))).shape) == (2, 4)


@pytest.mark.parametrize(
    "wrong", [dict(units=()), dict(units=(4, 0))], ids=["empty", "zero"]
)
def test_bad_units_are_refused(wrong):
    with pytest.raises(ValueError, match="units"):
        MLPHead(**wrong)


def test_bad_normalization_is_refused():
    with pytest.raises(ValueError, match="layer"):
        MLPHead((4,), output_normalization="layer")
