"""Images that are tensors of the backend."""

import keras
import numpy as np
import pytest

import kerassl.data


def test_black_float_images_and_tensors_pass():
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), "uint8")
    floats = images.astype("float32")
    kerassl.data.check_images(np.zeros((2, 8, 8, 1), "float32"))
    kerassl.data.check_images(keras.ops.convert_to_tensor(images))
    kerassl.data.check_images(keras.ops.convert_to_tensor(floats))
    with pytest.raises(ValueError, match="scaled"):
        kerassl.data.check_images(keras.ops.convert_to_tensor(floats / 255))
