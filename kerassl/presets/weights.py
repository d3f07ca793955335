"""Reads an HDF5 file of weights that anybody may have written."""

import io
import math
from typing import Any

import numpy as np

from kerassl.presets.graph import Weight
from kerassl.presets.info import WEIGHTS, PresetError, check
from kerassl.reading import shown

FLOAT32 = np.dtype("<f4")
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
        A list of float32 arrays, one for each expected weight.

    Raises:
        PresetError: if a weight is missing, or there is another one; if it has
            another shape or dtype, is stored in another way than as plain
            numbers in this file, or isn't finite; if there are links.
    """
    import h5py

    shapes = {weight.place: weight.shape for weight in expected}
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            found = _data_sets(file, 100 + 40 * len(expected), shapes)
            missing = [place for place in shapes if place not in found]
            check(
                not missing,
                f"{WEIGHTS} lacks {len(missing)} weights of the architecture: "
                f"{', '.join(missing[:5])}.",
            )
            return [_array(found[w.place], w) for w in expected]
    except PresetError:
        raise
    except Exception as error:
        raise PresetError(
            f"{WEIGHTS} is no HDF5 file of weights: "
            f"{type(error).__name__}: {error}"
        ) from error


def _data_sets(
    file: Any, most: int, shapes: dict[str, tuple[int, ...]]
) -> dict[str, Any]:
    import h5py

    found: dict[str, Any] = {}
    seen: set[int] = set()
    groups = [("", file)]
    while groups:
        path, group = groups.pop()
        for name in group:
            place = f"{path}/{name}" if path else name
            link = group.get(name, getlink=True)
            check(
                type(link) is h5py.HardLink,
                f"{WEIGHTS}: {shown(place)} is {type(link).__name__} to "
                f"{shown(getattr(link, 'path', '?'))}"
                f"{_in_file(link)}. Weights must be in the file itself.",
            )
            item = group[name]
            address = h5py.h5o.get_info(item.id).addr
            check(
                address not in seen and len(seen) < most,
                f"{WEIGHTS}: {shown(place)} is linked twice, or there are "
                f"more than {most} objects.",
            )
            seen.add(address)
            if isinstance(item, h5py.Group):
                groups.append((place, item))
                continue
            check(
                isinstance(item, h5py.Dataset) and place in shapes,
                f"{WEIGHTS}: {shown(place)} is no weight of the architecture.",
            )
            found[place] = item
    return found


def _in_file(link: Any) -> str:
    filename = getattr(link, "filename", None)
    return "" if filename is None else f" in the file {shown(filename)}"


def _array(item: Any, weight: Weight) -> np.ndarray:
    import h5py

    place = f"{WEIGHTS}: {weight.place!r} ({weight.name})"
    check(
        item.shape == weight.shape,
        f"{place} has the shape {item.shape}, and the architecture needs "
        f"{weight.shape}.",
    )
    check(
        item.dtype == FLOAT32,
        f"{place} has the dtype {item.dtype}, and must be float32.",
    )
    plan = item.id.get_create_plist()
    check(not item.is_virtual, f"{place} is a virtual data set.")
    check(
        plan.get_external_count() == 0,
        f"{place} is stored in other files (external storage).",
    )
    check(
        plan.get_layout() in (h5py.h5d.CONTIGUOUS, h5py.h5d.COMPACT)
        and plan.get_nfilters() == 0
        and item.id.get_storage_size() == 4 * math.prod(weight.shape),
        f"{place} isn't stored as plain numbers: it is in chunks, compressed, "
        "or not there at all.",
    )
    array = item[()]
    check(np.isfinite(array).all(), f"{place} holds NaN or infinite numbers.")
    return array
