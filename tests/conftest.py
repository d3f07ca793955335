"""Real small images for every test."""

import keras
import numpy as np
import pytest

from kerassl import data


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    """64 real images, 28x28, one channel."""
    return data.load("fashion_mnist_small", "train", limit=64).images


@pytest.fixture(autouse=True)
def clean_state():
    """Each test starts with a seed and leaves no dtype policy behind."""
    keras.utils.set_random_seed(1)
    yield
    keras.config.set_dtype_policy("float32")
