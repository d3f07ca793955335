"""Reads the weights of a preset from an untrusted HDF5 file."""

import math

import numpy as np

from kerassl.presets.format.architecture import Weight
from kerassl.presets.format.hdf5 import read_arrays
from kerassl.presets.format.info import WEIGHTS, PresetError, check
from kerassl.reading import shown

# Bytes that HDF5 may need for the groups of one weight, and in all for layers
# without weights.
OVERHEAD = 16 * 1024
BASE = 4 * 1024**2


def check_size(size: int, expected: list[Weight]) -> None:
    """Refuses a file whose size doesn't fit the weights.

    Args:
        size: int, bytes.
        expected: the architecture's weights.

    Raises:
        PresetError: if the file is too small or too large.
    """
    low = 4 * sum(math.prod(weight.shape) for weight in expected)
    high = low + OVERHEAD * len(expected) + BASE
    check(
        low <= size <= high,
        f"{WEIGHTS} has {size:,} bytes. The architecture in config.json has "
        f"weights of {low:,} bytes, for which a file may have up to {high:,}.",
    )


def read_weights(
    data: bytes | bytearray, expected: list[Weight]
) -> list[np.ndarray]:
    """Returns the weights in a file's bytes, and refuses anything else.

    Args:
        data: the content of the file.
        expected: the architecture's weights.

    Returns:
        A list of float32 arrays, one for each expected weight: views of the
        data.

    Raises:
        PresetError: if a weight is missing, unexpected, or has another shape
            or dtype; if it isn't stored as plain numbers in this file, or
            isn't finite; if there are links, or two weights share bytes.
    """
    arrays = read_arrays(data, 100 + 40 * len(expected))
    paths = {weight.path for weight in expected}
    if missing := [w.path for w in expected if w.path not in arrays]:
        raise PresetError(
            f"{WEIGHTS} lacks {len(missing)} weights of the architecture: "
            f"{', '.join(missing[:5])}."
        )
    if extra := sorted(set(arrays) - paths):
        raise PresetError(
            f"{WEIGHTS}: {shown(extra[0])} is not a weight of the architecture."
        )
    for weight in expected:
        array = arrays[weight.path]
        what = f"{WEIGHTS}: {weight.path!r} ({weight.name})"
        check(
            array.shape == weight.shape,
            f"{what} has the shape {array.shape}, and the architecture needs "
            f"{weight.shape}.",
        )
        check(
            np.isfinite(array).all(), f"{what} holds NaN or infinite numbers."
        )
    return [arrays[weight.path] for weight in expected]
