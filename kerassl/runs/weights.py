"""The trained weights that a run goes on from, and its teacher."""

import hashlib
from pathlib import Path
from typing import Any

import keras

from kerassl.names import START
from kerassl.presets import list_presets, load_encoder
from kerassl.presets.format.info import UNLICENSED, PresetInfo
from kerassl.presets.load import HUB, KERASHUB, full_name, open_source
from kerassl.presets.privacy import (
    labels_row,
    public_names,
    starts,
    used_labels,
)
from kerassl.recipes import Recipe
from kerassl.run_folder import folder_of, read_settings
from kerassl.runs.subject import open_encoder, recorded_range

# What KerasHub downloads from.
_ADDRESSES = ("hf://", "kaggle://", "modelscope://")


def open_weights(
    source: str | Path, image_shape: tuple[int, ...] | None = None
) -> keras.Model:
    """Loads an encoder to go on from, whose weights are finite.

    Args:
        source: as in `kerassl.load_encoder`.
        image_shape: `(height, width, channels)`, by default as in training.

    Raises:
        ValueError: if a weight isn't finite, or the encoder can't take such
            images.
        FileNotFoundError: if the encoder doesn't exist.
    """
    encoder = open_encoder(source)
    if image_shape in (None, encoder.input_shape[1:]):
        return encoder
    return load_encoder(source, image_shape=image_shape)


def describe_weights(
    source: str | Path, encoder: keras.Model
) -> dict[str, Any]:
    """Returns what a run records of the weights that it goes on from.

    Args:
        source: as in `kerassl.load_encoder`.
        encoder: what it was loaded as.

    Returns:
        A dict: `source`; `is_public`, whether others find the weights there;
        `sha256`, of the weights; `name`; and as far as they are known
        `license`, `method`, `datasets`, `value_range` and `supervised`,
        whether labels were used, also before these weights' own training.
    """
    digest = hashlib.sha256()
    for weight in encoder.get_weights():
        digest.update(weight.tobytes())
    found: dict[str, Any] = {"source": str(source)}
    found["is_public"] = is_public(source)
    found["sha256"] = digest.hexdigest()
    found["name"] = encoder.name
    if (value_range := recorded_range(source)) is not None:
        found["value_range"] = value_range.to_dict()
    if full_name(source).startswith(KERASHUB):
        return found
    if (preset := open_source(source)) is not None:
        return found | _of_preset(preset.info)
    return found | _of_run(Path(source))


def describe_teacher(recipe: Recipe, model: keras.Model) -> dict[str, Any]:
    """Returns what a run records of a teacher that its recipe names.

    Args:
        recipe: `Recipe`.
        model: what was built of it.

    Returns:
        A dict with `teacher`, as `describe_weights`; empty without a teacher.
    """
    source = recipe.method_args.get("teacher")
    if source is None:
        return {}
    return {"teacher": describe_weights(source, model.teacher)}


def _of_preset(info: PresetInfo) -> dict[str, Any]:
    found = {
        "name": info.name,
        "method": info.method,
        "datasets": list(info.datasets),
    }
    if info.license != UNLICENSED:
        found["license"] = info.license
    return found | _supervised(used_labels(info.recipe, info.training))


def _of_run(path: Path) -> dict[str, Any]:
    """Describes the encoder in a run's folder, or one of its files."""
    folder = folder_of(path)
    if folder is None:
        return {}
    settings = read_settings(folder)
    earlier = settings.get("weights", {})
    if path.name == START:
        known = ("name", "license", "method", "datasets", "supervised")
        return {key: earlier[key] for key in known if key in earlier}
    own = public_names([str(settings["data"])]).values()
    found = {
        "method": settings["recipe"]["method"],
        "datasets": [*dict.fromkeys([*earlier_datasets(settings), *own])],
    }
    # What a teacher's license means for its student isn't known.
    if "license" in earlier and "teacher" not in starts(settings["recipe"]):
        found["license"] = earlier["license"]
    return found | _supervised(
        used_labels(settings["recipe"], earlier_labels(settings))
    )


def _supervised(used: bool | None) -> dict[str, bool]:
    return {} if used is None else {"supervised": used}


def earlier_datasets(settings: dict[str, Any]) -> list[str]:
    """Returns the data sets of a run's start and of its teacher.

    Args:
        settings: what its `recipe.json` holds.
    """
    found = [
        name
        for start in ("weights", "teacher")
        for name in settings.get(start, {}).get("datasets", ())
    ]
    return list(dict.fromkeys(found))


def earlier_labels(settings: dict[str, Any]) -> dict[str, str]:
    """Returns whether labels were used, in a row for a preset's `training`.

    Args:
        settings: what a run's `recipe.json` holds.

    Returns:
        A dict, which is empty if the run learned from its own data only.
    """
    recorded = [name for name in ("weights", "teacher") if name in settings]
    found = [
        settings.get(name, {}).get("supervised")
        for name in {*recorded, *starts(settings["recipe"])}
    ]
    if not found:
        return {}
    if True in found or None not in found:
        return labels_row(True in found)
    return labels_row(None)


def is_public(source: str | Path) -> bool:
    """Whether others find the same encoder at a source.

    Args:
        source: as in `kerassl.load_encoder`, which takes a local path before a
            preset of the same name, and KerasHub's names before a path.
    """
    source = full_name(source)
    if source.startswith(KERASHUB):
        name = source.removeprefix(KERASHUB)
        return not set(name) & set(":/\\.") or name.startswith(_ADDRESSES)
    if source.startswith(HUB):
        return True
    names = (info.name for info in list_presets())
    return source in names and not Path(source).exists()


def public_source(weights: dict[str, Any]) -> str | None:
    """Returns where others find the weights too; `None` for a local path.

    Args:
        weights: what `describe_weights` returned.
    """
    source = weights["source"]
    # Older runs don't record it.
    known = weights.get("is_public")
    return source if (is_public(source) if known is None else known) else None


def public_weights(weights: dict[str, Any]) -> str:
    """Describes weights in a published preset, without a local path.

    Args:
        weights: what `describe_weights` returned.
    """
    words = public_source(weights) or f"{weights['name']} (own weights)"
    if weights.get("method"):
        words += f", trained with {weights['method']}"
    words += f", license {weights.get('license', 'not known')}"
    return f"{words}, sha256 {weights['sha256'][:16]}"
