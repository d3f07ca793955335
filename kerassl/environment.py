"""Versions, backend and device of this process, and what others inherit."""

import os
from importlib.metadata import version
from pathlib import Path
from typing import Any


def environment() -> dict[str, Any]:
    """Returns the versions, the backend and the device of this process.

    Returns:
        A dict of `"versions"`, a dict of package to version; `"backend"`, such
        as `"torch"`; and `"device"`, such as `"cpu"`.
    """
    import keras

    from kerassl import __version__

    backend = keras.config.backend()
    # TensorFlow's is a path: "/job:localhost/.../device:CPU:0".
    device = str(keras.ops.zeros(()).device).rpartition("device:")[2].lower()
    return {
        "versions": {
            "kerassl": __version__,
            "keras": keras.__version__,
            backend: version(backend),
        },
        "backend": backend,
        "device": device,
    }


def child_variables() -> dict[str, str]:
    """Returns environment variables for another process of Python.

    It finds this package, even in a clone, and runs no files of the working
    directory, which `python -m` would find first.
    """
    paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "PYTHONSAFEPATH": "1",
    }


def has_accelerator() -> bool:
    """Returns whether this process computes on something faster than a CPU."""
    return "cpu" not in environment()["device"]
