"""Verifies the folder of a preset from an untrusted author."""

import hashlib
import math
import os
import stat
from pathlib import Path
from typing import Any

from kerassl.presets.format.architecture import (
    Architecture,
    Layout,
    Weight,
    is_float32,
    object_config,
)
from kerassl.presets.format.build import Preset, check_build
from kerassl.presets.format.graph import Graph
from kerassl.presets.format.info import (
    CARD,
    CONFIG,
    CONVERTER,
    FILES,
    INFO,
    METADATA,
    WEIGHTS,
    PresetInfo,
    check,
    read_json,
)
from kerassl.presets.format.kinds import BACKBONES
from kerassl.presets.format.weights import check_size, read_weights
from kerassl.reading import is_int, items, shown, text

BLOCK = 1024**2
# The largest size of each file. That of the weights follows from the
# architecture.
MOST_BYTES = {
    INFO: 4 * BLOCK,
    CONFIG: 16 * BLOCK,
    METADATA: BLOCK,
    CONVERTER: BLOCK,
    CARD: 4 * BLOCK,
}


def verify_preset(folder: str | Path) -> PresetInfo:
    """Verifies a preset's folder without running any code from it.

    First come the names and kinds of the files, `kerassl.json` and its schema,
    the SHA-256 of each file, and the architecture in `config.json`, for which
    no weights are created. The weights are read last, once. `docs/presets.md`
    lists all checks. Hidden files, such as the Hub's `.gitattributes`, are
    ignored.

    Args:
        folder: path.

    Returns:
        The content of `kerassl.json`, a `PresetInfo`.

    Raises:
        PresetError: if a check fails; says what was found and why it is
            refused.

    Example:
    ```python
    info = kerassl.verify_preset("presets/simclr_resnet_nano")
    info.scores["knn"]["accuracy"]
    ```
    """
    preset = open_preset(folder)
    check_build(preset)
    return preset.info


def open_preset(folder: str | Path, links: bool = False) -> Preset:
    """Verifies a preset and returns its content, without building it.

    Args:
        folder: path.
        links: bool. Whether files may be symbolic links, as in the cache of
            huggingface_hub, which creates them itself. Files that don't belong
            to a preset are then ignored instead of refused.

    Returns:
        A `Preset`.

    Raises:
        PresetError: as `verify_preset`.
    """
    folder = Path(folder)
    sizes = _sizes(folder, links)
    info, architecture, weights = describe(folder, sizes, links)
    data = _read(folder / WEIGHTS, sizes[WEIGHTS], links, info.files[WEIGHTS])
    return Preset(info, architecture, read_weights(data, weights))


def describe(
    folder: Path, sizes: dict[str, int], links: bool = False
) -> tuple[PresetInfo, Architecture, list[Weight]]:
    """Verifies all of a preset except its weights, which may not be there yet.

    The card is not read: its author may edit it, for example on the Hub, and
    nothing depends on it.

    Args:
        folder: path.
        sizes: dict of file names, including that of the weights, to sizes in
            bytes.
        links: as in `open_preset`.

    Returns:
        The content of `kerassl.json`, the architecture, and its weights.

    Raises:
        PresetError: as `verify_preset`, also if the size of the weights' file
            doesn't fit the architecture.
    """
    check_sizes(sizes)
    info = PresetInfo.from_dict(
        read_json(_read(folder / INFO, sizes[INFO], links), INFO)
    )
    _check_names(info, sizes)
    small = {
        name: _read(folder / name, sizes[name], links, info.files[name])
        for name in info.files
        if name not in (CARD, WEIGHTS)
    }
    config = read_json(small[CONFIG], CONFIG)
    architecture = _architecture(info, config)
    _check_image_shape(info, architecture)
    layout = architecture.layout(info.image_shape)
    _check_agreement(info, layout)
    _check_metadata(info, read_json(small[METADATA], METADATA))
    if CONVERTER in small:
        check_converter(info, read_json(small[CONVERTER], CONVERTER))
    check_size(sizes[WEIGHTS], layout.weights)
    return info, architecture, layout.weights


def file_entry(path: Path) -> dict[str, Any]:
    """Returns a file's entry in `kerassl.json`."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
            size += len(block)
    return {"sha256": digest.hexdigest(), "size": size}


def check_converter(info: PresetInfo, found: Any) -> None:
    """Refuses an `image_converter.json` that kerassl wouldn't have written.

    Raises:
        PresetError: naming the entry.
    """
    kind = info.class_name.replace("Backbone", "ImageConverter")
    fields = object_config(found, kind, "keras_hub", f"keras_hub>{kind}")
    size = list(info.image_shape[:2])
    nothing: dict[str, Any] = {"scale": None, "offset": None}
    expected = {
        "image_size": None if None in size else size,
        **(info.normalization or nothing),
        "interpolation": "bilinear",
        "antialias": False,
        "crop_to_aspect_ratio": True,
        "pad_to_aspect_ratio": False,
        "bounding_box_format": "yxyx",
        "trainable": True,
    }
    for key, value in fields.items():
        is_valid = (
            isinstance(value, str) and len(value) <= 200
            if key == "name"
            else is_float32(value)
            if key == "dtype"
            else key in expected and value == expected[key]
        )
        check(
            is_valid,
            f"{CONVERTER} has {key}={shown(value)}, and {INFO} asks for "
            f"{shown(expected.get(key, 'no such entry'))}.",
        )
    missing = set(expected) - set(fields)
    check(not missing, f"{CONVERTER} lacks {sorted(missing)}.")


def _sizes(folder: Path, links: bool) -> dict[str, int]:
    """Returns the sizes of the folder's files, without opening any."""
    check(folder.is_dir(), f"There is no folder {folder}.")
    sizes = {}
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        name = entry.name
        # huggingface_hub's cache may hold more of a repository than a preset.
        if name.startswith(".") or (links and name not in FILES):
            continue
        check(
            name in FILES,
            f"{folder} holds {shown(name)}, which is not a file of a preset. "
            f"Those are: {', '.join(FILES)}.",
        )
        check(
            links or not entry.is_symlink(),
            f"{name} is a symbolic link. The files of a preset must be in its "
            "folder.",
        )
        status = entry.stat(follow_symlinks=links)
        check(stat.S_ISREG(status.st_mode), f"{name} is not a regular file.")
        sizes[name] = status.st_size
    check(
        INFO in sizes,
        f"{folder} has no {INFO}, so it is not a kerassl preset. "
        "KerasHub's own presets load with keras_hub.models.",
    )
    return sizes


def check_sizes(sizes: dict[str, int]) -> None:
    """Refuses files that are too large to be read.

    Args:
        sizes: dict of a preset's files to their sizes in bytes.

    Raises:
        PresetError: naming the file.
    """
    for name, size in sizes.items():
        most = MOST_BYTES.get(name, math.inf)
        check(
            size <= most, f"{name} has {size:,} bytes; {most:,} is the limit."
        )


def _check_names(info: PresetInfo, sizes: dict[str, int]) -> None:
    names = {*FILES} - {INFO}
    if info.class_name not in BACKBONES:
        names.remove(CONVERTER)
    check(
        set(info.files) | {CARD} == names,
        f"{INFO}: `files` must name {', '.join(sorted(names))}. "
        f"Found: {', '.join(sorted(info.files))}",
    )
    missing, extra = names - {*sizes, CARD}, set(sizes) - names - {INFO}
    check(not missing, f"The preset lacks {', '.join(sorted(missing))}.")
    check(
        not extra,
        f"The preset holds {', '.join(sorted(extra))}, which {INFO} doesn't "
        "name.",
    )
    for name, file in info.files.items():
        if name == CARD:
            continue
        check(
            sizes[name] == file["size"],
            f"{name} has {sizes[name]:,} bytes, and {INFO} says "
            f"{file['size']:,}: it was changed or is incomplete.",
        )


def _read(
    path: Path, size: int, links: bool, entry: dict[str, Any] | None = None
) -> bytearray:
    """Reads a file of a known size once, and hashes it."""
    follow = 0 if links else getattr(os, "O_NOFOLLOW", 0)
    data, digest, count = bytearray(size), hashlib.sha256(), 0
    view = memoryview(data)
    with open(
        path,
        "rb",
        buffering=0,
        opener=lambda name, flags: os.open(name, flags | follow),
    ) as file:
        while count < size and (
            read := file.readinto(view[count : count + BLOCK])
        ):
            digest.update(view[count : count + read])
            count += read
        check(
            count == size and not file.read(1),
            f"{path.name} changed while it was read.",
        )
    check(
        entry is None or digest.hexdigest() == entry["sha256"],
        f"{path.name} was changed: its SHA-256 is {digest.hexdigest()}, and "
        f"{INFO} says {entry and entry['sha256']}.",
    )
    return data


def _architecture(info: PresetInfo, config: Any) -> Architecture:
    if info.class_name in BACKBONES:
        return BACKBONES[info.class_name](config)
    check(
        info.class_name == Graph.class_name,
        f"{INFO}: `class_name` is {info.class_name!r}. kerassl supports "
        f"{', '.join([Graph.class_name, *BACKBONES])}.",
    )
    check(
        info.normalization is None,
        f"{INFO}: `normalization` must be null. The graph in {CONFIG} has its "
        "own.",
    )
    return Graph(config)


def _check_image_shape(info: PresetInfo, architecture: Architecture) -> None:
    shape, own = info.image_shape, architecture.image_shape
    check(
        shape[-1] == own[-1]
        and all(b is None or a == b for a, b in zip(shape[:2], own[:2])),
        f"{INFO}: `image_shape` is {shape}, and {CONFIG} has {own}.",
    )


def _check_agreement(info: PresetInfo, layout: Layout) -> None:
    parameters = sum(math.prod(weight.shape) for weight in layout.weights)
    check(
        info.parameters == parameters,
        f"{INFO}: `parameters` is {info.parameters:,}, and the architecture "
        f"has {parameters:,}.",
    )
    outputs = {
        2: ("features",),
        3: ("tokens", "class_token", "patches"),
        4: ("map",),
    }.get(len(layout.output_shape), ())
    check(
        info.output in outputs and info.features == layout.output_shape[-1],
        f"{INFO}: `output` is {info.output!r} with {info.features} features, "
        f"and the architecture returns {layout.output_shape}.",
    )


def _check_metadata(info: PresetInfo, found: Any) -> None:
    keys = {
        "keras_version",
        "keras_hub_version",
        "parameter_count",
        "date_saved",
        "tasks",
    }
    check(
        isinstance(found, dict) and set(found) == keys,
        f"{METADATA} must have the entries {sorted(keys)}. Found: "
        f"{shown(found)}",
    )
    check(
        is_int(found["parameter_count"], 0, 2**34)
        and found["parameter_count"] == info.parameters
        and items(text(100), 0, 100).is_valid(found["tasks"])
        and all(
            text(100).is_valid(found[key])
            for key in ("keras_version", "keras_hub_version", "date_saved")
        ),
        f"{METADATA}: the number of parameters differs from {INFO}, or `tasks` "
        f"or a version is malformed. Found: {shown(found)}",
    )
