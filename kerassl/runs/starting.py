"""Starts and resumes runs."""

from pathlib import Path
from typing import Any

import keras

from kerassl import data as kerassl_data
from kerassl import distributed, encoders, recipes
from kerassl.data.inspection import channel_statistics
from kerassl.environment import environment
from kerassl.models import load_keras_file
from kerassl.names import FROM_WEIGHTS, MAX_UNREADABLE, START, split_library
from kerassl.recipes import Recipe
from kerassl.recipes.build import decided
from kerassl.run_folder import (
    CHECKPOINT,
    IMAGES,
    NOTE_LENGTH,
    RECIPE,
    read_settings,
    refuse_files,
)
from kerassl.run_lock import check_free
from kerassl.runs.checkpoint import Position, load_checkpoint
from kerassl.runs.files import check_writable
from kerassl.runs.run import Run
from kerassl.runs.steps import steps_per_epoch
from kerassl.runs.subject import (
    check_channels,
    images_hash,
    recorded_range,
)
from kerassl.runs.weights import (
    describe_teacher,
    describe_weights,
    open_weights,
)
from kerassl.training.inputs import check_labels
from kerassl.training.precision import of_new_layers
from kerassl.training.step import build_optimizer
from kerassl.value_range import Stated

#: How many images a new encoder's normalization is measured on.
NORMALIZED_IMAGES = 1000


def start(
    folder: str | Path,
    recipe: Recipe,
    data: str,
    *,
    weights: str | Path | None = None,
    limit: int | None = None,
    data_dir: str | None = None,
    max_unreadable: float | None = None,
    value_range: Stated = None,
    overwrite: bool = False,
) -> Run:
    """Prepares a new run: checks everything, loads the data, builds the model.

    `Run.train` is the first to write or remove a file.

    Args:
        folder: path of the run's folder.
        recipe: `Recipe`.
        data: str, as in `kerassl.data.load`. The run trains on its split
            `"train"`.
        weights: trained weights to go on from: a source as in
            `kerassl.load_encoder`. The recipe must be one of
            `kerassl.recipes.going_on`. Images get the encoder's size, unless
            the recipe has another one, which it must if that isn't square.
        limit: int or `None`, the maximum number of images.
        data_dir: as in `kerassl.data.load`.
        max_unreadable: as in `kerassl.data.load`.
        value_range: as in `kerassl.data.load`; by default that of the
            weights, if there are any.
        overwrite: bool. Whether to replace an existing run.

    Returns:
        A `Run`.

    Raises:
        ValueError: if the data, the encoder and the recipe don't fit.
        FileNotFoundError: if the data or the weights don't exist.
        FileExistsError: if the folder has a run, and `overwrite` is `False`;
            or if it has no run, but something with the name of a run's file.
        InUseError: if another process trains in the folder.
        OSError: if the folder can't be created or isn't writable.

    Example:
    ```python
    recipe = kerassl.recipes.get("simclr", "cpu").replace(epochs=2)
    run = kerassl.runs.start("runs/a", recipe, "fashion_mnist_small")
    run.train()
    ```
    """
    folder = Path(folder)
    _check_folder(folder)
    refuse_files(folder, overwrite)
    policy = recipe.precision or keras.config.dtype_policy().name
    recipe = decided(recipe.replace(precision=policy))
    encoder = None
    if weights is not None:
        if recipe.encoder != FROM_WEIGHTS:
            raise ValueError(
                "Weights need a recipe that goes on from them, such as "
                f"kerassl.recipes.going_on(recipe). Received: {recipe.encoder}"
            )
        encoder = open_weights(weights)
        height, width = encoder.input_shape[1:3]
        if recipe.image_size is None:
            if height != width:
                raise ValueError(
                    f"The weights take images of {height} x {width} pixels, "
                    "and runs make square views. Give the size to train at: "
                    "image_size (--image-size)."
                )
            recipe = recipe.replace(image_size=height)
    settings = {
        "recipe": recipe.to_dict(),
        "recipe_hash": recipe.hash,
        "data": data,
        "limit": limit,
        "data_dir": data_dir,
        "max_unreadable": (
            MAX_UNREADABLE if max_unreadable is None else max_unreadable
        ),
        "devices": distributed.device_count(),
        **environment(),
    }
    if isinstance(value_range, str):
        settings["range"] = value_range
    if value_range is None and weights is not None:
        value_range = recorded_range(weights)
    if value_range is not None:
        settings["value_range"] = value_range
    images = _load_data(recipe, settings, encoder, folder)
    settings.pop("value_range", None)
    if images.value_range is not None:
        # In numbers, also where percentiles were asked for.
        settings["value_range"] = images.value_range.to_dict()
    if encoder is None:
        recipe = _normalized(recipe, images)
        settings |= {"recipe": recipe.to_dict(), "recipe_hash": recipe.hash}
    if images.name != str(data):
        settings["data_asked"] = str(data)
    settings["data"] = images.name  # With a commit, if it is on the Hub.
    settings["images"] = len(images.images)
    settings["images_hash"] = images_hash(images)
    if images.notes:
        settings["data_notes"] = [note[:NOTE_LENGTH] for note in images.notes]
    if weights is not None and encoder is not None:
        check_channels(encoder, images)
        settings["weights"] = describe_weights(weights, encoder)
        if encoder.input_shape[1:] != images.image_shape:
            encoder = open_weights(weights, images.image_shape)
    steps = steps_per_epoch(recipe, images)
    model = recipes.build_model(recipe, images.image_shape, steps, encoder)
    _check_labels(model, images)
    model.check_batch(recipe.batch_size)
    settings |= describe_teacher(recipe, model)
    return Run(folder, settings, images, model, overwrite=overwrite)


def resume(
    folder: str | Path,
    *,
    epochs: int | None = None,
    data_dir: str | None = None,
) -> Run:
    """Prepares to continue a run that was stopped or killed, or to extend it.

    Args:
        folder: path of the run's folder.
        epochs: int or `None`, a new and larger number of epochs. The schedules
            of the learning rate and of momentum networks become those of a run
            of that length, so a learning rate that had decayed rises again.
            The result differs from a run started with as many epochs, which
            `recipe.json` records under `"extended"`.
        data_dir: as in `kerassl.data.load`, if the data have moved.

    Returns:
        A `Run`, which may already be finished.

    Raises:
        ValueError: if a file of the run is broken, the backend differs, the
            data have changed, or `epochs` is less than the run's.
        FileNotFoundError: if the folder doesn't hold a run, or the data are
            missing.
        InUseError: if another process trains in the folder.
        OSError: if the folder isn't writable.

    Example:
    ```python
    run = kerassl.runs.resume("runs/a")
    if not run.finished:
        run.train()
    ```
    """
    folder = Path(folder)
    settings = read_settings(folder)
    _check_folder(folder)
    if data_dir is not None:
        settings["data_dir"] = data_dir
    backend = keras.config.backend()
    if settings["backend"] != backend:
        raise ValueError(
            f"{folder} was started on {settings['backend']}, and only that "
            "backend can resume it exactly. Set "
            f"KERAS_BACKEND={settings['backend']}; it is {backend}."
        )
    recipe = Recipe.from_dict(settings["recipe"])
    recipe = recipe.replace(precision=recipe.precision or "float32")
    if recipe.hash != settings["recipe_hash"]:
        raise ValueError(
            f"The recipe in {folder / RECIPE} was changed: its hash is "
            f"{recipe.hash[:12]} instead of {settings['recipe_hash'][:12]}."
        )
    longer = recipe.replace(epochs=epochs)
    if longer.epochs < recipe.epochs:
        raise ValueError(
            f"The run in {folder} has {recipe.epochs} epochs. It can be "
            f"extended, but not shortened to {epochs}."
        )
    start = _start_of(folder, settings)
    data = _load_data(recipe, settings, start, folder)
    count = len(data.images)
    if settings.get("images", count) != count:
        raise ValueError(
            f"The images have changed: {settings['data']} now has {count}, and "
            f"the run was started with {settings['images']}."
        )
    if (folder / CHECKPOINT).exists():
        # Keras saves no policy for a few layers, such as the encoder's own.
        with of_new_layers(recipe.precision):
            model, position = load_checkpoint(folder / CHECKPOINT)
    else:  # Killed in the first epoch: start again from the same weights.
        steps = steps_per_epoch(recipe, data)
        model = recipes.build_model(recipe, data.image_shape, steps, start)
        position = Position()
    if model.encoder.input_shape[1:] != data.image_shape:
        raise ValueError(
            f"The images have changed: {settings['data']} now has shape "
            f"{data.image_shape}, the run {model.encoder.input_shape[1:]}."
        )
    _check_labels(model, data)
    if settings.get("images_hash", found := images_hash(data)) != found:
        path = Path(settings["data"].removeprefix("folder:"))
        where = "" if path.is_absolute() else f" in {Path.cwd()}"
        raise ValueError(
            f"The images have changed: {settings['data']}{where} holds others "
            "than the run was started with."
        )
    run = Run(folder, settings, data, model, position)
    return run if longer == recipe else _extended(run, longer)


def _extended(run: Run, longer: Recipe) -> Run:
    """Returns a run that goes on from another's state, by a longer recipe."""
    change = {
        "from": run.recipe.epochs,
        "at": run.position.epoch,
        "to": longer.epochs,
    }
    settings = {
        **run.settings,
        "recipe": longer.to_dict(),
        "recipe_hash": longer.hash,
        "extended": [*run.settings.get("extended", ()), change],
    }
    model = recipes.build_model(
        longer,
        run.data.image_shape,
        steps_per_epoch(longer, run.data),
        _start_of(run.folder, run.settings),
        # A distillation's, whose file may be gone.
        getattr(run.model, "teacher", None),
    )
    _copy_state(run.model, model)
    extended = Run(run.folder, settings, run.data, model, run.position)
    extended.saved = run.saved  # The folder still holds the shorter one.
    return extended


def _copy_state(source: keras.Model, target: keras.Model) -> None:
    """Copies weights, random states and optimizer variables."""
    build_optimizer(target)
    for old, new in zip(
        (*source.variables, *source.optimizer.variables),
        (*target.variables, *target.optimizer.variables),
        strict=True,
    ):
        new.assign(keras.ops.convert_to_numpy(old))


def _check_labels(model: Any, data: Any) -> None:
    """Checks labels, if the method learns from them, before `fit` does."""
    if model.needs_labels:
        check_labels(data.labels, len(data.images))


def _start_of(folder: Path, settings: dict[str, Any]) -> keras.Model | None:
    """Loads the encoder that a run went on from, if it did."""
    if "weights" not in settings:
        return None
    if not (folder / START).is_file():
        raise FileNotFoundError(
            f"{folder} lacks {START}, the encoder that the run went on from."
        )
    return encoders.accepted(load_keras_file(folder / START))


def _load_data(
    recipe: Recipe,
    settings: dict[str, Any],
    encoder: keras.Model | None,
    folder: Path,
) -> Any:
    return kerassl_data.load(
        settings["data"],
        "train",
        image_size=recipe.image_size,
        limit=settings["limit"],
        data_dir=settings["data_dir"],
        max_unreadable=settings["max_unreadable"],
        channels=None if encoder is None else encoder.input_shape[-1],
        remembered=folder / IMAGES,
        value_range=settings.get("value_range"),
    )


def _normalized(recipe: Recipe, images: Any) -> Recipe:
    """Returns the recipe with the mean and deviation of images, if needed.

    Those of 8-bit gray and RGB images are the encoder's.
    """
    *_, channels = images.image_shape
    is_plain = images.value_range is None and (
        channels == 3 or (channels == 1 and images.images.dtype == "uint8")
    )
    has_own = split_library(recipe.encoder)[0] and channels == 3
    if is_plain or has_own or recipe.normalization:
        return recipe
    few = images.limited(NORMALIZED_IMAGES)
    found = channel_statistics(few.images)
    if max(found["mean"]) + max(found["std"]) < 1:
        raise ValueError(
            f"The images of {images.name} are black: their values fill less "
            f"than a hundredth of the range {images.value_range}. State it: "
            "--range 1%,99% measures one."
        )
    if min(found["std"]) <= 0:
        flat = found["std"].index(min(found["std"])) + 1
        raise ValueError(
            f"Channel {flat} of {images.name} has the same value in all "
            "images, so that it can't be normalized: state a --range in which "
            "its values differ, or give normalization.mean and "
            "normalization.std (--set)."
        )
    normalization = {
        name: [round(value / 255, 6) for value in found[name]]
        for name in ("mean", "std")
    }
    return recipe.replace(normalization=normalization)


def _check_folder(folder: Path) -> None:
    """Checks that a folder is writable or can be created; creates nothing."""
    check_free(folder)
    if distributed.process()[0]:
        return  # Only the first process writes.
    path = folder.absolute()
    while not path.exists():
        path = path.parent
    if not path.is_dir():
        raise NotADirectoryError(f"{path} is a file, not a folder for a run.")
    check_writable(path)
