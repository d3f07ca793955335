"""Names of arguments in files that older versions of kerassl wrote."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

RENAMED = {
    "permutations": "num_permutations",
    "project_colours": "project_colors",
    "prototypes": "num_prototypes",
    "small_crop_area": "local_crop_area",
    "small_size": "local_size",
    "small_views": "num_local_crops",
}
# Arguments that are gone: the encoder's weights tell what they said.
REMOVED = {"trained_positions"}


def current_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments of a saved config under their present names."""
    return {
        RENAMED.get(name, name): value
        for name, value in config.items()
        if name not in REMOVED
    }


def current_recipe(fields: dict[str, Any]) -> dict[str, Any]:
    """Returns the fields of a saved recipe under their present names."""
    nested = {
        name: current_names(fields[name])
        for name in ("method_args", "views")
        if isinstance(fields.get(name), dict)
    }
    return {**fields, **nested}


def recipe_hash(fields: dict[str, Any]) -> str:
    """Returns the SHA-256 of a recipe's fields, 64 hexadecimal digits."""
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
