"""A pretraining run in a folder: it starts, stops and goes on exactly."""

import csv
import io
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerassl import data as kerassl_data
from kerassl import recipes, training
from kerassl.recipes import Recipe
from kerassl.run_folder import (
    CHECKPOINT,
    CHECKPOINTS,
    ENCODER,
    HISTORY,
    RECIPE,
    REPORT,
    SCORES,
    environment,
    read_settings,
)
from kerassl.runs.callbacks import RunCallbacks, Watch
from kerassl.runs.checkpoint import Position, load_checkpoint, save_checkpoint
from kerassl.runs.files import replacing


class DivergedError(RuntimeError):
    """The loss or a weight became NaN or infinite."""


class Run:
    """A pretraining run in a folder. Make one with `start` or `resume`.

    The folder holds

    - `recipe.json`: the recipe, the data and the versions;
    - `checkpoint.keras`: the training model with its optimizer, and how far
      the run has come, written at the end of each epoch and when it stops;
    - `encoder.keras`: the encoder alone;
    - `history.csv`: a row for each epoch;
    - `checkpoints/epoch_0010.keras` and so on, if older ones are to be kept.

    Each file is replaced as a whole. A run that is resumed, whether it was
    stopped or killed, ends with the same weights and the same rows, but for
    the time that they took.

    Args:
        folder: path.
        settings: what `recipe.json` holds.
        data: `kerassl.data.ImageData` to train on.
        model: a compiled `SelfSupervisedModel`.
        position: `Position`, or `None` for a run that is to start: `train`
            then first writes `recipe.json` and removes an older run's files.
    """

    def __init__(
        self,
        folder: Path,
        settings: dict[str, Any],
        data: Any,
        model: keras.Model,
        position: Position | None = None,
    ):
        self.folder = folder
        self.settings = settings
        self.recipe = Recipe.from_dict(settings["recipe"])
        self.data = data
        self.model = model
        self.is_new = position is None
        self.position = position or Position()
        self.steps_per_epoch = _steps_per_epoch(self.recipe, data)
        self.stopping = False

    @property
    def total_steps(self) -> int:
        """The number of steps of the whole run."""
        return self.recipe.epochs * self.steps_per_epoch

    @property
    def steps_done(self) -> int:
        """The number of finished steps."""
        return self.position.epoch * self.steps_per_epoch + self.position.step

    @property
    def finished(self) -> bool:
        """Whether all epochs are done."""
        return self.position.epoch >= self.recipe.epochs

    def stop(self) -> None:
        """Makes `train` save and return after the current step.

        It may be called from a callback, another thread or a signal handler.
        """
        self.stopping = True
        self.model.stop_training = True

    def train(
        self,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        keep: int = 0,
    ) -> None:
        """Trains to the end, or until `stop`.

        Args:
            callbacks: Keras callbacks. What they add to the logs of an epoch
                gets into `history.csv`. If one sets `model.stop_training`, it
                is as if it called `stop`.
            keep: int >= 0, the number of epochs whose checkpoints to keep
                beside the last one. To go back, put one in its place.

        Raises:
            DivergedError: if the loss or a weight becomes NaN or infinite. The
                last checkpoint stays.
        """
        self._prepare_folder()
        watch = Watch(self)
        told = RunCallbacks([*callbacks, watch], self)
        told.begin()
        while not self.finished and not training.agree(self.stopping):
            self._train_epoch(told, watch)
            if self.is_writer:
                training.alone(self._save)
                self._keep(keep)
        told.end()

    @property
    def is_writer(self) -> bool:
        """Whether this process, of all that train, writes the files."""
        return training.process()[0] == 0

    def _prepare_folder(self) -> None:
        training.agree(False)  # All have looked whether there is a run already.
        if not self.is_writer:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.is_new:
            # The checkpoint goes first: it must not meet another recipe.
            for name in (CHECKPOINT, ENCODER, HISTORY, SCORES, REPORT):
                (self.folder / name).unlink(missing_ok=True)
            shutil.rmtree(self.folder / CHECKPOINTS, ignore_errors=True)
            text = json.dumps(self.settings, indent=2) + "\n"
            _write_text(self.folder / RECIPE, text)
            self.is_new = False
        else:
            # They may be older than the checkpoint, if the run was killed.
            training.alone(self._save_outputs)

    def _batches(self) -> Any:
        return self.data.batches(
            self.recipe.batch_size,
            shuffle=True,
            seed=self.recipe.seed,
            drop_remainder=True,
            epoch=self.position.epoch,
            start_step=self.position.step,
            part=training.process(),
        )

    def _train_epoch(self, callbacks: RunCallbacks, watch: Watch) -> None:
        position = self.position
        batches = self._batches()
        started = time.perf_counter()
        # One `fit` an epoch: an epoch that goes on at a later step is shorter.
        self.model.fit(
            batches,
            initial_epoch=position.epoch,
            epochs=position.epoch + 1,
            shuffle=False,  # Keras would shuffle the batches; they are already.
            verbose=0,
            callbacks=callbacks,
        )
        seconds = position.seconds + time.perf_counter() - started
        self._check_finite(watch)
        step = position.step + watch.steps
        if step < self.steps_per_epoch:
            metrics = [
                float(keras.ops.convert_to_numpy(variable))
                for variable in self.model.metrics_variables
            ]
            self.position = Position(
                position.epoch, step, seconds, metrics, position.history
            )
            return
        images = self.steps_per_epoch * self.recipe.batch_size
        row = {
            "epoch": position.epoch + 1,
            **watch.logs,
            "seconds": round(seconds, 2),
            "images_per_second": round(images / seconds, 1),
        }
        self.position = Position(
            position.epoch + 1, history=[*position.history, row]
        )

    def _check_finite(self, watch: Watch) -> None:
        batches = self._batches()
        if watch.diverged:
            first = min(watch.diverged)
            raise self._diverged(
                "The loss", self.steps_done + first, batches[first]
            )
        for weight in self.model.weights:
            if not np.isfinite(keras.ops.convert_to_numpy(weight)).all():
                last = watch.steps - 1
                raise self._diverged(
                    f"The weight {weight.path}",
                    self.steps_done + last,
                    batches[last],
                )

    def _diverged(self, what: str, step: int, batch: tuple) -> DivergedError:
        images = np.asarray(batch[0], "float32")
        return DivergedError(
            f"{what} of {self.recipe.method} became NaN or infinite by step "
            f"{step + 1} of {self.total_steps} (epoch "
            f"{self.position.epoch + 1}). The {len(images)} images of that "
            f"step have pixels from {images.min():g} to {images.max():g}, mean "
            f"{images.mean():.4g}, deviation {images.std():.4g}. The last "
            "checkpoint is kept. A lower learning rate or a longer warmup may "
            "help."
        )

    def _save(self) -> None:
        # Those of another encoder.
        (self.folder / SCORES).unlink(missing_ok=True)
        save_checkpoint(self.folder / CHECKPOINT, self.model, self.position)
        self._save_outputs()

    def _keep(self, count: int) -> None:
        if count == 0 or self.position.step:
            return
        folder = self.folder / CHECKPOINTS
        folder.mkdir(exist_ok=True)
        with replacing(
            folder / f"epoch_{self.position.epoch:04d}.keras"
        ) as new:
            shutil.copyfile(self.folder / CHECKPOINT, new)
        for old in sorted(folder.glob("epoch_*.keras"))[:-count]:
            old.unlink()

    def _save_outputs(self) -> None:
        with replacing(self.folder / ENCODER) as temporary:
            self.model.encoder.save(temporary)
        history = self.position.history
        text = io.StringIO()
        if history:
            columns = list(dict.fromkeys(key for row in history for key in row))
            writer = csv.DictWriter(text, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(history)
        _write_text(self.folder / HISTORY, text.getvalue())


def start(
    folder: str | Path,
    recipe: Recipe,
    data: str,
    *,
    limit: int | None = None,
    data_dir: str | None = None,
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
        overwrite: bool. Whether a run that is there already may be replaced.

    Returns:
        A `Run`.

    Raises:
        ValueError: if the data, the encoder and the recipe don't fit.
        FileNotFoundError: if there is no such data.
        FileExistsError: if the folder has a run, and `overwrite` is `False`.

    Example:
    ```python
    recipe = kerassl.recipes.get("simclr", "cpu").replace(epochs=2)
    run = kerassl.runs.start("runs/a", recipe, "fashion_mnist_small")
    run.train()
    ```
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file, not a folder for a run.")
    if not overwrite and _holds_run(folder):
        raise FileExistsError(
            f"{folder} holds a run already. Resume it, overwrite it, or choose "
            "another folder."
        )
    settings = {
        "recipe": recipe.to_dict(),
        "recipe_hash": recipe.hash,
        "data": data,
        "limit": limit,
        "data_dir": data_dir,
        "devices": training.device_count(),
        **environment(),
    }
    images = _load_data(recipe, settings)
    settings["images"] = len(images.images)
    steps = _steps_per_epoch(recipe, images)
    model = recipes.build_model(recipe, images.image_shape, steps)
    return Run(folder, settings, images, model)


def resume(folder: str | Path, *, data_dir: str | None = None) -> Run:
    """Prepares to go on with a run that was stopped or killed.

    Args:
        folder: path of the run's folder.
        data_dir: as in `kerassl.data.load`, if the data have moved.

    Returns:
        A `Run`, which may be finished.

    Raises:
        ValueError: if a file of the run is broken, the backend is another one,
            or the data have changed.
        FileNotFoundError: if the folder holds no run, or the data are gone.

    Example:
    ```python
    run = kerassl.runs.resume("runs/a")
    if not run.finished:
        run.train()
    ```
    """
    folder = Path(folder)
    settings = read_settings(folder)
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
        steps = _steps_per_epoch(recipe, data)
        model = recipes.build_model(recipe, data.image_shape, steps)
        position = Position()
    if model.encoder.input_shape[1:] != data.image_shape:
        raise ValueError(
            f"The images have changed: {settings['data']} now has shape "
            f"{data.image_shape}, the run {model.encoder.input_shape[1:]}."
        )
    return Run(folder, settings, data, model, position)


def _load_data(recipe: Recipe, settings: dict[str, Any]) -> Any:
    return kerassl_data.load(
        settings["data"],
        "train",
        image_size=recipe.image_size,
        limit=settings["limit"],
        data_dir=settings["data_dir"],
    )


def _steps_per_epoch(recipe: Recipe, data: Any) -> int:
    count = len(data.images)
    if count < recipe.batch_size:
        raise ValueError(
            f"{count} images don't fill a batch of {recipe.batch_size}. Use a "
            f"batch size of at most {count}, or more images."
        )
    devices = training.device_count()
    if recipe.batch_size % devices:
        raise ValueError(
            f"A batch of {recipe.batch_size} images can't be shared out to "
            f"{devices} devices. Choose a multiple of it."
        )
    return count // recipe.batch_size


def _holds_run(folder: Path) -> bool:
    return any(
        (folder / name).exists()
        for name in (RECIPE, CHECKPOINT, ENCODER, HISTORY)
    )


def _write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
