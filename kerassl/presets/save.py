"""Saves an encoder as a preset."""

import dataclasses
import datetime
import json
import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerassl import encoders
from kerassl.image_format import channels_last
from kerassl.presets.backbones import Backbone
from kerassl.presets.build import Preset
from kerassl.presets.card import card
from kerassl.presets.graph import check_order
from kerassl.presets.info import (
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
from kerassl.presets.public import (
    is_shared,
    public_names,
    public_scores,
    public_spec,
)
from kerassl.presets.published import plain_name, published, serialized
from kerassl.presets.verify import file_entry, verify_preset
from kerassl.recipes import Recipe
from kerassl.recipes.command import pretrain_command
from kerassl.run_folder import (
    ENCODER,
    HISTORY,
    environment,
    load_keras_file,
    read_history,
    read_scores,
    read_settings,
)


def save_preset(
    model: Any,
    folder: str | Path,
    *,
    name: str | None = None,
    license: str | None = None,
    datasets: Sequence[str] = (),
    scores: Mapping[str, Mapping[str, Any]] | None = None,
    recipe: Recipe | None = None,
    training: Mapping[str, Any] | None = None,
    description: str = "",
    overwrite: bool = False,
) -> Path:
    """Saves the encoder alone as a preset, in float32.

    The folder holds KerasHub's files, `kerassl.json` and a model card. It is
    written beside its place, verified, and then renamed, so that there is
    never half a preset. Dropout is left out, since it changes no features.

    Args:
        model: an encoder (Functional, of core Keras layers or of a KerasHub
            ResNet or ViT), a `SelfSupervisedModel`, or the path of a run's
            folder, of which the recipe, the data, the time of training and
            the scores that `kerassl evaluate` left are taken too.
        folder: path of the folder to make.
        name: str, by default the folder's. Letters, digits, dots, hyphens and
            underscores.
        license: str, as the Hub spells it, such as `"apache-2.0"`. By default
            none, so that nobody else is given a right to use the encoder.
        datasets: names of the data sets that the encoder was trained on. By
            default the run's; images of your own are "own images", since a
            preset holds no path of your machine.
        scores: dict of a protocol's name to its results, with `"accuracy"` in
            [0, 1], such as `{"knn": {"accuracy": 0.91, "k": 20}}`.
        recipe: `Recipe`, or `None`.
        training: dict of plain values: `"command"`, `"seconds"`, `"device"`
            and whatever else is worth knowing.
        description: str, the first paragraph of the model card.
        overwrite: bool. Whether a preset that is there already is replaced, as
            a whole. Anything else is never replaced.

    Returns:
        The folder's path.

    Raises:
        FileExistsError: if the folder exists, and isn't a preset that may be
            overwritten.
        PresetError: if presets can't hold such an encoder, or a field has
            another form.

    Example:
    ```python
    kerassl.save_preset("runs/a", "presets/simclr_resnet_nano",
                        scores={"knn": {"accuracy": 0.83}})
    encoder = kerassl.load_encoder("presets/simclr_resnet_nano")
    ```
    """
    folder = Path(folder)
    _check_place(folder, overwrite)
    encoder, known = _source(model, recipe, tuple(datasets))
    preset = published(
        encoder,
        name=plain_name(folder.resolve().name) if name is None else name,
        license=license or UNLICENSED,
        description=description,
        datasets=known["datasets"],
        scores=json.loads(
            json.dumps(known["scores"] if scores is None else scores)
        ),
        training=known["training"] | json.loads(json.dumps(training or {})),
        method=known["method"],
        recipe=known["recipe"],
        recipe_hash=known["recipe_hash"],
        versions=known["versions"],
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
            _flush(path)
        _put(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _check_place(folder: Path, overwrite: bool) -> None:
    if not (folder.exists() or folder.is_symlink()):
        return
    if not overwrite:
        raise FileExistsError(
            f"{folder} exists already. Overwrite it, or choose another folder."
        )
    names = [] if not folder.is_dir() else os.listdir(folder)
    others = [n for n in names if n not in FILES and not n.startswith(".")]
    if folder.is_symlink() or INFO not in names or others:
        raise FileExistsError(
            f"{folder} is not a preset"
            + (f": it holds {', '.join(others[:3])}" if others else "")
            + ". Only presets are overwritten; choose another folder."
        )


def _source(
    model: Any, recipe: Recipe | None, datasets: tuple[str, ...]
) -> tuple[keras.Model, dict[str, Any]]:
    """Returns the encoder, and what is known of its training."""
    here = environment()
    known: dict[str, Any] = {
        "method": None,
        "datasets": datasets,
        "training": {},
        "scores": {},
        "versions": here["versions"],
    }
    if isinstance(model, (str, Path)):
        run = Path(model)
        settings = read_settings(run)
        path = run / ENCODER
        if not path.is_file():
            raise FileNotFoundError(
                f"{run} holds no {ENCODER} yet: no epoch is finished."
            )
        encoder = encoders.accepted(load_keras_file(path))
        own = Recipe.from_dict(settings["recipe"])
        scores, data = read_scores(run), str(settings["data"])
        specs = [
            data,
            *(str(s["data"]) for s in scores.values() if "data" in s),
        ]
        names = public_names(specs)
        if datasets and not is_shared(data):
            names[data] = datasets[0]
        known["datasets"] = datasets or (names[data],)
        known["versions"] = settings.get("versions", here["versions"])
        known["training"] = _training(
            run, settings | {"data": public_spec(data)}
        )
        known["scores"] = public_scores(scores, names)
        recipe = recipe or own
    else:
        encoder = getattr(model, "encoder", model)
        if encoder is not model:
            known["method"] = type(model).__name__
    if recipe is not None:
        known["method"] = recipe.method
    known["recipe"] = recipe and json.loads(json.dumps(recipe.to_dict()))
    known["recipe_hash"] = recipe and recipe.hash
    return encoders.as_encoder(encoder), known


def _training(run: Path, settings: dict[str, Any]) -> dict[str, Any]:
    training: dict[str, Any] = {"backend": settings["backend"]}
    if command := pretrain_command(settings):
        training["command"] = command
    if "device" in settings:
        training["device"] = settings["device"]
    if (run / HISTORY).is_file():
        rows = read_history(run)
        training["epochs"] = len(rows)
        training["seconds"] = round(
            sum(row.get("seconds", 0.0) for row in rows), 2
        )
    return training


def _write(preset: Preset, folder: Path) -> None:
    info, architecture, arrays = preset
    with channels_last():
        model = architecture.model()
    check_order(model, architecture.layout(info.image_shape).weights)
    model.set_weights(arrays)
    model.save_weights(folder / WEIGHTS)
    _dump(serialized(model), folder / CONFIG)
    is_backbone = isinstance(architecture, Backbone)
    _dump(
        {
            "keras_version": keras.__version__,
            "keras_hub_version": _version("keras-hub"),
            "parameter_count": info.parameters,
            "date_saved": f"{datetime.datetime.now():%Y-%m-%d@%H:%M:%S}",
            "tasks": ["ImageClassifier"] if is_backbone else [],
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


def _put(temporary: Path, folder: Path) -> None:
    """Gives a whole folder its name, in place of an older preset."""
    if not folder.exists():
        os.rename(temporary, folder)
    else:
        old = temporary.with_name(f"{temporary.name}-old")
        os.rename(folder, old)
        try:
            os.rename(temporary, folder)
        except OSError:
            os.rename(old, folder)
            raise
        # Not the preset's: the folder may be a clone of a repository.
        for path in old.glob(".*"):
            os.rename(path, folder / path.name)
        shutil.rmtree(old)
    if os.name == "posix":  # Windows can't open a folder.
        _flush(folder.parent)


def _flush(path: Path) -> None:
    file = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _dump(fields: dict[str, Any], path: Path) -> None:
    text = json.dumps(fields, indent=2, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
