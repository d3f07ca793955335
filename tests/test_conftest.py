"""What `conftest.py` does for every test."""

import keras
import numpy as np
import pytest


def drawn():
    return keras.ops.convert_to_numpy(keras.initializers.RandomNormal()((3,)))


@pytest.fixture(scope="module", params=["first", "after others"])
def shared(request):
    return drawn()


def test_shared_weights_do_not_depend_on_earlier_tests(shared):
    np.testing.assert_array_equal(shared, drawn())
