"""Real small images for every test."""

import atexit
import os
import re
import shutil
import tempfile

from tests import xla

# Many tests compile the same program, so JAX keeps them in a folder of this
# run. It reads these when it is imported. The workers of pytest-xdist and
# subprocesses inherit them, and with them the folder.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    folder = tempfile.mkdtemp(prefix="kerassl-jax-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
# Programs of a test run a few times: compiling them is what takes time, with
# JAX and with TensorFlow's `jit_compile`.
os.environ.setdefault("XLA_FLAGS", xla.flags(0))
# Sums of several threads are rounded differently in each run, and a saved run
# is compared with the one that goes on.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")

import keras  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

from kerassl import data  # noqa: E402


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """With `pytest -n`, keeps together the tests that share an effort.

    Those of a method compile the same programs, and those of any other file may
    share a fixture. (xdist's own `--dist loadgroup` does
    nothing, and says nothing, in xdist 3.8 with pytest 9.2.)
    """
    from xdist.scheduler import LoadScopeScheduling

    class Scheduler(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            method = re.search(r"test_contract\.py::\w+\[(\w+)", nodeid)
            return method[1] if method else nodeid.split("::")[0]

    return Scheduler(config, log)


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
