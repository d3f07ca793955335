"""Starts a run in a folder, or goes on with one."""

from pathlib import Path
from typing import Any

import keras

from kerassl import data as kerassl_data
from kerassl import distributed, recipes
from kerassl.names import MAX_UNREADABLE
from kerassl.recipes import Recipe
from kerassl.run_folder import (
    CHECKPOINT,
    RECIPE,
    environment,
    read_settings,
    refuse_run,
)
from kerassl.run_lock import check_free
from kerassl.runs.checkpoint import Position, load_checkpoint
from kerassl.runs.files import check_writable
from kerassl.runs.run import Run, state, steps_per_epoch
from kerassl.training.step import build_optimizer


def start(
    folder: str | Path,
    recipe: Recipe,
    data: str,
    *,
    limit: int | None = None,
    data_dir: str | None = None,
    max_unreadable: float | None = None,
    overwrite: bool = False,
) -> Run:
    """Prepares a new run: checks everything, loads the data, builds the model.

    Nothing is written or removed before `Run.train`.

    Args:
        folder: path of the run's folder.
        recipe: `Recipe`.
        data: str, as `kerassl.data.load` takes it; its training images.
        limit: int or `None`, the number of images to use.
        data_dir: as in `kerassl.data.load`.
        max_unreadable: float in [0, 1] or `None`, as in `kerassl.data.load`.
        overwrite: bool. Whether a run that is there already may be replaced.

    Returns:
        A `Run`.

    Raises:
        ValueError: if the data, the encoder and the recipe don't fit.
        FileNotFoundError: if there is no such data.
        FileExistsError: if the folder has a run, and `overwrite` is `False`.
        InUseError: if another process trains in the folder.
        OSError: if the folder can't be made or written into.

    Example:
    ```python
    recipe = kerassl.recipes.get("simclr", "cpu").replace(epochs=2)
    run = kerassl.runs.start("runs/a", recipe, "fashion_mnist_small")
    run.train()
    ```
    """
    folder = Path(folder)
    _check_folder(folder)
    if not overwrite:
        refuse_run(folder)
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
    images = _load_data(recipe, settings)
    settings["images"] = len(images.images)
    steps = steps_per_epoch(recipe, images)
    model = recipes.build_model(recipe, images.image_shape, steps)
    model.check_batch(recipe.batch_size)
    return Run(folder, settings, images, model, overwrite=overwrite)


def resume(
    folder: str | Path,
    *,
    epochs: int | None = None,
    data_dir: str | None = None,
) -> Run:
    """Prepares to go on with a run that was stopped or killed, or for longer.

    Args:
        folder: path of the run's folder.
        epochs: int or `None`. More epochs than the run has, finished or not.
            The schedules of the learning rate and of momentum networks are
            then those of a run of that length, so that the rate rises again
            where it had come down: it isn't the run that would have begun with
            so many epochs, and `recipe.json` says so under `"extended"`.
        data_dir: as in `kerassl.data.load`, if the data have moved.

    Returns:
        A `Run`, which may be finished.

    Raises:
        ValueError: if a file of the run is broken, the backend is another one,
            the data have changed, or `epochs` are fewer than the run's.
        FileNotFoundError: if the folder holds no run, or the data are gone.
        InUseError: if another process trains in the folder.
        OSError: if the folder can't be written into.

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
            f"can go on exactly. Set KERAS_BACKEND={settings['backend']}; "
            f"it is {backend}."
        )
    recipe = Recipe.from_dict(settings["recipe"])
    if recipe.hash != settings["recipe_hash"]:
        raise ValueError(
            f"The recipe in {folder / RECIPE} was changed: its hash is "
            f"{recipe.hash[:12]}, and {settings['recipe_hash'][:12]} is noted."
        )
    longer = recipe.replace(epochs=epochs)
    if longer.epochs < recipe.epochs:
        raise ValueError(
            f"The run in {folder} has {recipe.epochs} epochs. It can have "
            f"more, but not {epochs}."
        )
    data = _load_data(recipe, settings)
    count = len(data.images)
    if settings.get("images", count) != count:
        raise ValueError(
            f"The images have changed: {settings['data']} now has {count}, and "
            f"the run was started with {settings['images']}."
        )
    if (folder / CHECKPOINT).exists():
        model, position = load_checkpoint(folder / CHECKPOINT)
    else:  # Killed in the first epoch: the same start again.
        steps = steps_per_epoch(recipe, data)
        model = recipes.build_model(recipe, data.image_shape, steps)
        position = Position()
    if model.encoder.input_shape[1:] != data.image_shape:
        raise ValueError(
            f"The images have changed: {settings['data']} now has shape "
            f"{data.image_shape}, the run {model.encoder.input_shape[1:]}."
        )
    if longer == recipe:
        return Run(folder, settings, data, model, position)
    change = {"from": recipe.epochs, "at": position.epoch, "to": longer.epochs}
    extended = {
        **settings,
        "recipe": longer.to_dict(),
        "recipe_hash": longer.hash,
        "extended": [*settings.get("extended", ()), change],
    }
    steps = steps_per_epoch(longer, data)
    longer_model = recipes.build_model(longer, data.image_shape, steps)
    _copy_state(model, longer_model)
    run = Run(folder, extended, data, longer_model, position)
    run.saved = state(settings, position)
    return run


def _copy_state(source: keras.Model, target: keras.Model) -> None:
    """Gives a model another's weights, seeds and optimizer's variables."""
    build_optimizer(target)
    for old, new in zip(
        (*source.variables, *source.optimizer.variables),
        (*target.variables, *target.optimizer.variables),
        strict=True,
    ):
        new.assign(keras.ops.convert_to_numpy(old))


def _load_data(recipe: Recipe, settings: dict[str, Any]) -> Any:
    return kerassl_data.load(
        settings["data"],
        "train",
        image_size=recipe.image_size,
        limit=settings["limit"],
        data_dir=settings["data_dir"],
        max_unreadable=settings["max_unreadable"],
    )


def _check_folder(folder: Path) -> None:
    """Refuses a folder that can't be made or written into, without a trace."""
    check_free(folder)
    if distributed.process()[0]:
        return  # Only the first process writes.
    path = folder.absolute()
    while not path.exists():
        path = path.parent
    if not path.is_dir():
        raise NotADirectoryError(f"{path} is a file, not a folder for a run.")
    check_writable(path)
