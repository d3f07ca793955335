"""DINO's head: what weight normalization does, and the authors' sizes."""

import keras
import numpy as np
import pytest
from keras import ops

from kerassl.layers import DINOHead, WeightNormDense


@pytest.mark.parametrize("train_scale", [False, True])
def test_lengths_of_columns_do_not_matter(train_scale):
    layer = WeightNormDense(3, train_scale)
    layer.build((None, 4))
    assert len(layer.weights) == 1 + train_scale
    kernel = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    x = np.random.default_rng(1).normal(size=(2, 4)).astype("float32")
    expected = np.empty((2, 3))
    scale = [1.0, 1.0, 1.0]
    if train_scale:
        scale = [0.5, 2.0, 3.0]
        layer.scale.assign(scale)
    for n in range(2):
        for k in range(3):
            column = kernel[:, k] / np.sqrt(np.sum(kernel[:, k] ** 2))
            expected[n, k] = scale[k] * np.sum(x[n] * column)
    for factor in (1.0, [0.1, 7.0, 30.0]):
        layer.kernel.assign(kernel * factor)
        found = ops.convert_to_numpy(layer(x))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_the_head_is_the_authors():
    head = DINOHead(32, 16, 8)
    head.build((None, 24))
    shapes = [tuple(w.shape) for w in head.weights]
    assert shapes == [(24, 16), (16,), (16, 16), (16,), (16, 8), (8,), (8, 32)]
    stds = [np.std(ops.convert_to_numpy(w)) for w in head.weights]
    # A truncated normal: 0.88 of the untruncated one's deviation.
    assert 0.015 < stds[2] < 0.021 and stds[1] == 0
    logits = head(np.random.default_rng(0).normal(size=(5, 24)))
    assert tuple(logits.shape) == (5, 32)
    # Cosines.
    assert float(ops.max(ops.abs(logits))) <= 1 + 1e-6
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(head)
    )
    assert again.get_config() == head.get_config()
    tokens = head(np.zeros((2, 3, 24), "float32"))
    assert tuple(tokens.shape) == (2, 3, 32)


def test_the_logits_are_float32_in_half_precision():
    head = DINOHead(32, 16, 8, batch_normalization=True, dtype="mixed_bfloat16")
    head.build((None, 24))
    logits = head(np.ones((2, 24), "float32"), training=True)
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"


def test_wrong_numbers_are_refused():
    with pytest.raises(ValueError, match="depth"):
        DINOHead(32, depth=0)
    with pytest.raises(ValueError, match="units"):
        WeightNormDense(0)
