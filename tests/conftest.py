"""Real small images for every test."""

import atexit
import os
import re
import shutil
import tempfile
from pathlib import Path

from tests import xla

# Many tests compile the same programs, so JAX caches them in a folder of this
# run. These variables are read when JAX is imported; the workers of
# pytest-xdist and subprocesses inherit them, and so share the folder.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    folder = tempfile.mkdtemp(prefix="kerassl-jax-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
# Tests run a program only a few times, so compiling takes most of the time, on
# JAX and with TensorFlow's `jit_compile`.
os.environ.setdefault("XLA_FLAGS", xla.flags(0))
# With several threads sums are rounded differently in each run, but tests
# compare a resumed run with an uninterrupted one.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")

import keras  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

from kerassl import data  # noqa: E402

# How long an example takes depends on what else the machine does.
settings.register_profile(
    "kerassl", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("kerassl")

# Backends hardly matter to the tests in these folders, and contract and parity
# tests cover every method on every backend: without --all these run on PyTorch
# only, except for tests marked `every_backend`.
PORTABLE = (
    "cli",
    "encoders",
    "evaluation",
    "hub_server",
    "methods",
    "presets",
    "recipes",
    "runs",
    "visualization",
)


def pytest_addoption(parser):
    parser.addoption(
        "--all", action="store_true", help="also run tests marked `more`"
    )


def pytest_configure(config):
    config.addinivalue_line(
        "markers",
        "more(covered_by, always_on, always): runs only with --all, on one "
        "backend or with some parameters; see tests.backends.more",
    )
    config.addinivalue_line(
        "markers", "every_backend: runs on every backend without --all, too"
    )
    if config.getoption("--all"):
        # Read by tests.backends.examples, also in workers of pytest-xdist.
        os.environ["KERASSL_TEST_ALL"] = "1"


def pytest_collection_modifyitems(config, items):
    if config.getoption("--all"):
        return
    kept, more = [], []
    for item in items:
        mark = item.get_closest_marker("more")
        only_on = mark.kwargs["always_on"] if mark else _usual_backend(item)
        runs = only_on == keras.config.backend()
        if mark and hasattr(item, "callspec"):
            parameters = item.callspec.params.values()
            runs |= any(x in mark.kwargs["always"] for x in parameters)
        (kept if runs else more).append(item)
    items[:] = kept
    config.hook.pytest_deselected(items=more)


def _usual_backend(item):
    """Returns the backend that a test runs on by default."""
    folder = item.path.relative_to(Path(__file__).parent).parts[0]
    if folder in PORTABLE and not item.get_closest_marker("every_backend"):
        return "torch"
    return keras.config.backend()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Keeps tests that share work in one process of `pytest -n`.

    Contract tests of a method compile the same programs; tests of any other
    file may share a fixture. (xdist's own `--dist loadgroup` silently does
    nothing in xdist 3.8 with pytest 9.2.)
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


def pytest_runtest_setup():
    """Seeds what a file's tests share, which is made before `clean_state`."""
    keras.utils.set_random_seed(1)


@pytest.fixture(autouse=True)
def clean_state():
    """Seeds each test and restores the dtype policy after it."""
    keras.utils.set_random_seed(1)
    yield
    keras.config.set_dtype_policy("float32")
