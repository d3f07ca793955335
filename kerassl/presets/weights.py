"""Reads an HDF5 file of weights that anybody may have written."""

import math

import numpy as np

from kerassl.presets.graph import Weight
from kerassl.presets.hdf5 import read_arrays
from kerassl.presets.info import WEIGHTS, PresetError, check
from kerassl.reading import shown

# What HDF5 may need for the groups of one weight, and for those of layers
# without weights.
OVERHEAD = 16 * 1024
BASE = 4 * 1024**2


def check_size(size: int, expected: list[Weight]) -> None:
    """Refuses a file that can't be these weights, by its size alone.

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
        f"weights of {low:,} bytes, for which {high:,} are the most.",
    )


def read_weights(
    data: bytes | bytearray, expected: list[Weight]
) -> list[np.ndarray]:
    """Returns the weights in a file's bytes, and refuses all else in it.

    Args:
        data: the content of the file.
        expected: the architecture's weights.

    Returns:
        A list of float32 arrays, one for each expected weight: views of the
        data.

    Raises:
        PresetError: if a weight is missing, or there is another one; if it has
            another shape or dtype, is stored in another way than as plain
            numbers in this file, or isn't finite; if there are links, or two
            weights share bytes.
    """
    arrays = read_arrays(data, 100 + 40 * len(expected))
    places = {weight.place for weight in expected}
    if missing := [w.place for w in expected if w.place not in arrays]:
        raise PresetError(
            f"{WEIGHTS} lacks {len(missing)} weights of the architecture: "
            f"{', '.join(missing[:5])}."
        )
    if extra := sorted(set(arrays) - places):
        raise PresetError(
            f"{WEIGHTS}: {shown(extra[0])} is not a weight of the architecture."
        )
    for weight in expected:
        array = arrays[weight.place]
        place = f"{WEIGHTS}: {weight.place!r} ({weight.name})"
        check(
            array.shape == weight.shape,
            f"{place} has the shape {array.shape}, and the architecture needs "
            f"{weight.shape}.",
        )
        check(
            np.isfinite(array).all(), f"{place} holds NaN or infinite numbers."
        )
    return [arrays[weight.place] for weight in expected]
