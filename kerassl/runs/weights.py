"""The trained weights that a run goes on from."""

import hashlib
from pathlib import Path
from typing import Any

import keras

from kerassl.presets import load_encoder
from kerassl.presets.format.info import UNLICENSED
from kerassl.presets.load import KERASHUB, open_source
from kerassl.presets.public import public_names
from kerassl.run_folder import RECIPE, read_settings
from kerassl.runs.subject import open_encoder


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
        A dict: `source`; `sha256`, of the weights; and as far as they are
        known `name`, `license`, `method` and `datasets`.
    """
    digest = hashlib.sha256()
    for weight in encoder.get_weights():
        digest.update(weight.tobytes())
    found: dict[str, Any] = {"source": str(source)}
    found["sha256"] = digest.hexdigest()
    found["name"] = encoder.name
    if str(source).startswith(KERASHUB):
        return found
    if (preset := open_source(source)) is not None:
        info = preset.info
        found |= {
            "name": info.name,
            "method": info.method,
            "datasets": list(info.datasets),
        }
        if info.license != UNLICENSED:
            found["license"] = info.license
    elif (Path(source) / RECIPE).is_file():
        settings = read_settings(source)
        earlier = settings.get("weights", {})
        names = public_names([str(settings["data"])])
        found |= {
            "method": settings["recipe"]["method"],
            "datasets": [
                *earlier.get("datasets", ()),
                *names.values(),
            ],
        }
        if "license" in earlier:
            found["license"] = earlier["license"]
    return found


def public_source(weights: dict[str, Any]) -> str | None:
    """Returns where others find the weights too; `None` for a local path.

    Args:
        weights: what `describe_weights` returned.
    """
    source = weights["source"]
    return source if source == weights["name"] or "hf://" in source else None


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
