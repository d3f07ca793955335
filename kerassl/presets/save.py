"""Saves an encoder as a preset."""

import dataclasses
import datetime
import io
import json
import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from kerassl import encoders, registry
from kerassl.environment import environment
from kerassl.files import check_named, flush, other_entries, replace_folder
from kerassl.image_format import channels_last
from kerassl.networks import trained_encoder
from kerassl.presets.card import card
from kerassl.presets.extract import plain_name, published, serialized
from kerassl.presets.format.architecture import check_order
from kerassl.presets.format.backbones import Backbone
from kerassl.presets.format.build import Preset
from kerassl.presets.format.dinov2 import DINOv2
from kerassl.presets.format.info import (
    CARD,
    CONFIG,
    CONVERTER,
    FILES,
    INFO,
    METADATA,
    UNLICENSED,
    WEIGHTS,
    PresetError,
)
from kerassl.presets.format.verify import file_entry, verify_preset
from kerassl.reading import shown
from kerassl.renamed import recipe_hash


def save_preset(
    model: Any,
    folder: str | Path,
    *,
    name: str | None = None,
    license: str | None = None,
    datasets: str | Sequence[str] = (),
    scores: Mapping[str, Mapping[str, Any]] | None = None,
    recipe: Any = None,
    training: Mapping[str, Any] | None = None,
    description: str = "",
    overwrite: bool = False,
    **fields: Any,
) -> Path:
    """Saves an encoder as a preset, in float32.

    The folder contains KerasHub's files, `kerassl.json` and a model card. It is
    written under a temporary name, verified, and then renamed, so that an
    incomplete preset never appears. Dropout layers are left out, since they
    don't change features.

    To save the encoder of a run's folder, call `kerassl.runs.save_preset`.

    Args:
        model: an encoder (a Functional model of core Keras layers or of a
            KerasHub ResNet, ViT or DINOv2), or a `SelfSupervisedModel`, whose
            encoder is saved.
        folder: path of the folder to create.
        name: str, by default the folder's. Letters, digits, dots, hyphens and
            underscores.
        license: str, as the Hub spells it, such as `"apache-2.0"`. By default
            none, so that nobody else is given a right to use the encoder.
        datasets: names of the data sets that the encoder was trained on, or
            the name of one.
        scores: dict of protocol to results, with `"accuracy"` in [0, 1], such
            as `{"knn": {"accuracy": 0.91, "k": 20}}`.
        recipe: a `kerassl.recipes.Recipe` or the dict of its fields; or `None`.
        training: dict of plain values: `"command"`, `"seconds"`, `"device"`
            and anything else worth knowing.
        description: str, the first paragraph of the model card.
        overwrite: bool. Whether an existing preset is replaced, as a whole.
            Other folders are never replaced.
        **fields: further fields of `kerassl.presets.PresetInfo`, such as
            `method` or `versions`. By default the method is the recipe's or
            the model's class, and the versions are those installed.

    Returns:
        The folder's path.

    Raises:
        FileExistsError: if the folder exists, and isn't a preset that may be
            overwritten.
        PresetError: if presets can't hold such an encoder, or a field has
            another form.
        TypeError: if `model` is a path.
        ValueError: if the folder to overwrite is given as `.` or `..`.

    Example:
    ```python
    model.fit(images, epochs=100)
    kerassl.save_preset(model, "presets/simclr_resnet_nano",
                        datasets=["cifar10"], license="apache-2.0")
    encoder = kerassl.load_encoder("presets/simclr_resnet_nano")
    ```
    """
    if isinstance(model, (str, Path)):
        raise TypeError(
            f"`model` must be an encoder or a training model. Received: "
            f"{model!r}. For a run's folder, call "
            "kerassl.runs.save_preset(run, folder)."
        )
    folder = Path(folder)
    _check_target(folder, overwrite)
    encoder = trained_encoder(model)
    method = None if encoder is model else type(model).__name__
    if recipe is not None:
        recipe = getattr(recipe, "to_dict", lambda: recipe)()
        if not isinstance(recipe, dict):
            raise PresetError(
                "`recipe` must be a Recipe or the dict of its fields. "
                f"Received: {shown(recipe)}"
            )
        recipe = _plain(recipe, "recipe")
        method = recipe.get("method", method)
        fields["recipe_hash"] = recipe_hash(recipe)
    defaults = {"method": method, "versions": environment()["versions"]}
    preset = published(
        encoders.as_encoder(encoder),
        name=plain_name(folder.resolve().name) if name is None else name,
        license=license or UNLICENSED,
        description=description,
        datasets=(datasets,) if isinstance(datasets, str) else tuple(datasets),
        scores=_plain(scores or {}, "scores"),
        training=_plain(training or {}, "training"),
        recipe=recipe,
        **(defaults | fields),
    )
    for array in preset.arrays:
        if not np.isfinite(array).all():
            raise PresetError(f"{encoder.name} has NaN or infinite weights.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}-{uuid.uuid4().hex}")
    try:
        temporary.mkdir()
        _write(preset, temporary)
        verify_preset(temporary)
        for path in temporary.iterdir():
            flush(path)
        _check_target(folder, overwrite)  # Saving takes a while.
        replace_folder(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _plain(value: Any, name: str) -> Any:
    """Returns a value as JSON would: tuples and arrays become lists."""
    try:
        return json.loads(json.dumps(value, default=lambda x: x.tolist()))
    except (AttributeError, TypeError, ValueError) as error:
        raise PresetError(
            f"`{name}` must hold only plain values: {error}"
        ) from error


def _check_target(folder: Path, overwrite: bool) -> None:
    if not (folder.exists() or folder.is_symlink()):
        return
    if not overwrite:
        raise FileExistsError(
            f"{folder} exists already. Choose another folder, or overwrite it "
            "(`overwrite=True`, --overwrite)."
        )
    names = [] if not folder.is_dir() else os.listdir(folder)
    others = other_entries(names, FILES)
    if folder.is_symlink() or INFO not in names or others:
        raise FileExistsError(
            f"{folder} is not a preset"
            + (f": it holds {', '.join(others[:3])}" if others else "")
            + ". Only presets are overwritten; choose another folder."
        )
    check_named(folder)


def _write(preset: Preset, folder: Path) -> None:
    info, architecture, arrays = preset
    with channels_last():
        model = architecture.model()
    weights = architecture.layout(info.image_shape).weights
    check_order(model, weights)
    # In memory: where the disk is full, h5py may crash.
    stored = io.BytesIO()
    with h5py.File(stored, "w") as file:
        for weight, array in zip(weights, arrays, strict=True):
            file[weight.path] = array
    (folder / WEIGHTS).write_bytes(stored.getbuffer())
    _dump(serialized(model), folder / CONFIG)
    is_backbone = isinstance(architecture, Backbone)
    has_classifier = is_backbone and not isinstance(architecture, DINOv2)
    _dump(
        {
            "keras_version": keras.__version__,
            "keras_hub_version": _version("keras-hub"),
            "parameter_count": info.parameters,
            "date_saved": f"{datetime.datetime.now():%Y-%m-%d@%H:%M:%S}",
            "tasks": ["ImageClassifier"] if has_classifier else [],
        },
        folder / METADATA,
    )
    if is_backbone:
        _dump(_converter(preset), folder / CONVERTER)
        info = dataclasses.replace(
            info,
            versions=info.versions | {"keras-hub": _version("keras-hub")},
        )
    (folder / CARD).write_text(card(info), encoding="utf-8")
    files = {
        name: file_entry(folder / name)
        for name in FILES
        if name != INFO and (folder / name).exists()
    }
    _dump(dataclasses.replace(info, files=files).to_dict(), folder / INFO)


def _converter(preset: Preset) -> dict[str, Any]:
    import keras_hub

    info = preset.info
    size = info.image_shape[:2]
    name = info.class_name.replace("Backbone", "ImageConverter")
    converter = getattr(keras_hub.layers, name)(
        image_size=None if None in size else size,
        **(info.normalization or {}),
        dtype="float32",
    )
    return serialized(converter)


def _dump(fields: dict[str, Any], path: Path) -> None:
    text = json.dumps(fields, indent=2, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


registry.link(save_preset=save_preset)
