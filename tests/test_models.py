"""Copies of models."""

import keras
import numpy as np
import pytest

from kerassl.models import in_float32, in_precision, remade
from tests.contracts.methods import tiny_encoder


@pytest.mark.parametrize("is_inner", [False, True])
def test_copies_of_compiled_models_are_not_compiled(is_inner):
    model = tiny_encoder()
    # Keras can't find this loss by its name.
    model.compile("adam", loss=lambda y_true, y_pred: y_pred)
    if is_inner:
        inputs = keras.Input((28, 28, 1))
        model = keras.Model(inputs, model(inputs))
    half = in_precision(model, "mixed_bfloat16")
    whole = in_float32(half)
    for copy in (half, whole, remade(model)):
        assert not copy.compiled
        assert not getattr(copy.layers[-1], "compiled", False)
    for found, expected in zip(whole.get_weights(), model.get_weights()):
        np.testing.assert_array_equal(found, expected)
