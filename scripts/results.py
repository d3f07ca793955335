"""Reads and writes measured results: JSON files and JSON lines."""

import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
PRESETS = ROOT / "presets"

# Scripts measure this checkout, whether it is installed or not.
sys.path.insert(0, str(ROOT))


def recipe_hashes(fields: dict[str, Any]) -> set[str]:
    """Returns the hashes of a recipe as it is written now and was before.

    Results are kept with the hash of the time when they were measured.

    Args:
        fields: dict, as `Recipe.to_dict()` returns it and presets keep it.
    """
    from kerassl.renamed import RENAMED, current_recipe, recipe_hash

    former = {new: old for old, new in RENAMED.items()}
    now = current_recipe(fields)
    before = {
        name: {former.get(key, key): item for key, item in value.items()}
        for name, value in now.items()
        if name in ("method_args", "views")
    }
    # A ramp over the whole run was written with its number of epochs.
    before["method_args"] = {
        key: {**item, "epochs": now["epochs"]}
        if isinstance(item, dict) and set(item) == {"linear"}
        else item
        for key, item in before["method_args"].items()
    }
    written = now, {**now, **before}, in_pixels(now)
    return {recipe_hash(fields) for fields in written}


def weights_hash(info: dict[str, Any]) -> str:
    """Returns the SHA-256 of a preset's weights.

    Args:
        info: dict, of the preset in `presets/index.json`.
    """
    from kerassl.presets.format.info import WEIGHTS

    return info["files"][WEIGHTS]["sha256"]


def in_pixels(fields: dict[str, Any]) -> dict[str, Any]:
    """Returns a recipe with the size of its views on CIFAR-10 in pixels.

    Recipes had no shares of the image size before.
    """
    size = fields["views"].get("size")
    if not isinstance(size, dict):
        return fields
    views = {**fields["views"], "size": round(size["share"] * 32)}
    return {**fields, "views": views}


def read_json(path: Path) -> dict[str, Any]:
    """Returns the contents of a JSON file, or an empty dict without one."""
    if not path.exists():
        return {}
    return json.loads(path.read_text(encoding="utf-8"))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Returns the lines of a file of JSON lines, in order.

    Lines that an interruption cut off are skipped.
    """
    found = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError:
                continue
    return found


def append_line(path: Path, record: dict[str, Any]) -> None:
    """Appends a JSON line, on a new line even after one that was cut off."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read() != b"\n":
                file.write(b"\n")
        file.write(json.dumps(record).encode() + b"\n")


def peak_memory() -> float:
    """Returns the peak memory of this process in MB."""
    # Linux counts in KiB, macOS in bytes.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
