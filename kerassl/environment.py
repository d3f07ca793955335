"""Versions, backend and device of this process."""

from importlib.metadata import version
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


def has_accelerator() -> bool:
    """Returns whether this process computes on something faster than a CPU."""
    return "cpu" not in environment()["device"]
