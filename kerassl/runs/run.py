"""A pretraining run in a folder: it starts, stops and goes on exactly."""

import contextlib
import csv
import io
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerassl import distributed
from kerassl.recipes import Recipe
from kerassl.run_folder import (
    CHECKPOINT,
    CHECKPOINTS,
    ENCODER,
    HISTORY,
    RECIPE,
    REPORT,
    SCORES,
    TENSORBOARD,
    read_settings,
    refuse_run,
)
from kerassl.run_lock import InUseError, locked
from kerassl.runs.callbacks import RunCallbacks, Watch
from kerassl.runs.checkpoint import (
    Position,
    read_position,
    save_checkpoint,
)
from kerassl.runs.files import remove_partial, replacing


class DivergedError(RuntimeError):
    """The loss or a weight became NaN or infinite."""


class SaveError(OSError):
    """A file of the run can't be written; the last ones stay."""


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
        overwrite: bool. Whether a run that is to start may replace another.
    """

    def __init__(
        self,
        folder: Path,
        settings: dict[str, Any],
        data: Any,
        model: keras.Model,
        position: Position | None = None,
        overwrite: bool = False,
    ):
        self.folder = folder
        self.settings = settings
        self.recipe = Recipe.from_dict(settings["recipe"])
        self.data = data
        self.model = model
        self.is_new = position is None
        self.position = position or Position()
        self.overwrite = overwrite
        # What the folder must hold when `train` begins.
        self.saved = state(settings, position) if position else None
        self.steps_per_epoch = steps_per_epoch(self.recipe, data)
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
            InUseError: if another process trains in the folder.
            SaveError: if a file can't be written, as on a full disk. The last
                checkpoint stays.
            OSError: if the folder can't be made or locked, or has got a run
                since `start`.
            ValueError: if the run went on elsewhere since `resume`.
        """
        with self._own_folder():
            watch = Watch(self)
            told = RunCallbacks([*callbacks, watch], self)
            told.begin()
            while not self.finished and not distributed.any_process(
                self.stopping
            ):
                self._train_epoch(told, watch)
                if self.is_writer:
                    with self._writing():
                        distributed.on_one_device(self._save)
                        self._keep(keep)
            told.end()

    @property
    def is_writer(self) -> bool:
        """Whether this process, of all that train, writes the files."""
        return distributed.process()[0] == 0

    @contextlib.contextmanager
    def _own_folder(self) -> Iterator[None]:
        """Locks the folder while the run trains in it, and prepares it."""
        # Barrier: every process has checked for a run.
        distributed.any_process(False)
        refusal: OSError | ValueError | None = None
        with contextlib.ExitStack() as stack:
            if self.is_writer:
                try:
                    stack.enter_context(_folder(self.folder))
                    stack.enter_context(locked(self.folder))
                    stack.enter_context(self._removed_if_unused())
                    self._prepare_folder()
                except (OSError, ValueError) as error:
                    refusal = error
            # Otherwise the other processes would wait for the first step.
            if distributed.any_process(refusal is not None):
                raise refusal or InUseError(
                    f"The first process can't write into {self.folder}."
                )
            yield

    def _prepare_folder(self) -> None:
        remove_partial(self.folder)
        if self.is_new:
            if not self.overwrite:
                refuse_run(self.folder)
            # The checkpoint goes first: it must not meet another recipe.
            for name in (CHECKPOINT, ENCODER, HISTORY, SCORES, REPORT):
                (self.folder / name).unlink(missing_ok=True)
            for name in (CHECKPOINTS, TENSORBOARD):
                shutil.rmtree(self.folder / name, ignore_errors=True)
            with self._writing():
                self._save_settings()
            self.is_new = False
            return
        if self.saved != state_of(self.folder):
            raise InUseError(
                f"The run in {self.folder} went on in another process since it "
                "was loaded. Resume it again."
            )
        with self._writing():
            if self.saved != state(self.settings, self.position):
                # It has more epochs now: first the schedule, then the recipe.
                distributed.on_one_device(self._save)
                self._save_settings()
            # They may be older than the checkpoint, if the run was killed.
            distributed.on_one_device(self._save_outputs)

    @contextlib.contextmanager
    def _removed_if_unused(self) -> Iterator[None]:
        """Leaves no recipe behind that would refuse the next try.

        It stays if the process is killed: then the run can go on.
        """
        try:
            yield
        except Exception:
            if not self.is_new and not self._has_checkpoint:
                (self.folder / RECIPE).unlink(missing_ok=True)
                self.is_new, self.saved = True, None
            raise

    @property
    def _has_checkpoint(self) -> bool:
        return (self.folder / CHECKPOINT).exists()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Tells what fails in writing from what fails in a step."""
        try:
            yield
        except OSError as error:
            kept = " The last checkpoint is kept." * self._has_checkpoint
            raise SaveError(
                f"The run can't be saved in {self.folder}: "
                f"{error.strerror or error}.{kept}"
            ) from error

    def _batches(self) -> Any:
        return self.data.batches(
            self.recipe.batch_size,
            shuffle=True,
            seed=self.recipe.seed,
            drop_remainder=True,
            epoch=self.position.epoch,
            start_step=self.position.step,
            part=distributed.process(),
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
            f"{images.mean():.4g}, deviation {images.std():.4g}. "
            + "The last checkpoint is kept. " * self._has_checkpoint
            + "A lower learning rate or a longer warmup may help."
        )

    def _save(self) -> None:
        # Those of another encoder.
        (self.folder / SCORES).unlink(missing_ok=True)
        save_checkpoint(self.folder / CHECKPOINT, self.model, self.position)
        self.saved = state(self.settings, self.position)
        self._save_outputs()

    def _save_settings(self) -> None:
        text = json.dumps(self.settings, indent=2) + "\n"
        _write_text(self.folder / RECIPE, text)
        self.saved = state(self.settings, self.position)

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


@contextlib.contextmanager
def _folder(path: Path) -> Iterator[None]:
    """Makes a folder, and removes it at the end if it is empty."""
    made = [part for part in (path, *path.parents) if not part.exists()]
    path.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            for part in made:
                part.rmdir()


def state_of(folder: Path) -> tuple:
    """Returns the state of the run that a folder holds."""
    path, position = folder / CHECKPOINT, Position()
    if path.exists():
        position = read_position(path)
    return state(read_settings(folder), position)


def state(settings: dict[str, Any], position: Position) -> tuple:
    """Returns what tells one state of a run from another."""
    return settings.get("recipe_hash"), position.epoch, position.step


def _write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def steps_per_epoch(recipe: Recipe, data: Any) -> int:
    """Returns the number of full batches, or refuses the batch size."""
    count = len(data.images)
    if count < recipe.batch_size:
        raise ValueError(
            f"{count} images don't fill a batch of {recipe.batch_size}. Use a "
            f"batch size of at most {count}, or more images."
        )
    devices = distributed.device_count()
    if recipe.batch_size % devices:
        raise ValueError(
            f"A batch of {recipe.batch_size} images can't be shared out to "
            f"{devices} devices. Choose a multiple of it."
        )
    return count // recipe.batch_size
