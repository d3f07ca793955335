"""A pretraining run in a folder, which can stop and resume exactly."""

import contextlib
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerassl import distributed
from kerassl.callbacks import StartGuard
from kerassl.files import replacing, write_text
from kerassl.names import BEST, START
from kerassl.recipes import Recipe
from kerassl.run_folder import (
    CHECKPOINT,
    FILES,
    FOLDERS,
    IMAGES,
    RECIPE,
    SCORES,
    refuse_files,
)
from kerassl.run_lock import InUseError, locked
from kerassl.runs.background import Background, background
from kerassl.runs.callbacks import RunCallbacks, Watch
from kerassl.runs.checkpoint import (
    Position,
    keep_checkpoint,
    restore_outputs,
    save_checkpoint,
    state,
    state_of,
    write_outputs,
)
from kerassl.runs.files import folder_at, remove_partial
from kerassl.runs.steps import steps_per_epoch
from kerassl.training.precision import tensor_float32
from kerassl.training.step import averages_apart, not_finite, take_averages


class DivergedError(RuntimeError):
    """The loss or a weight became NaN or infinite."""


class SaveError(OSError):
    """A file of the run can't be written; the previous ones are kept."""


class Run:
    """A pretraining run in a folder. Create one with `start` or `resume`.

    The folder holds

    - `recipe.json`: the recipe, the data and the versions;
    - `checkpoint.keras`: the training model with its optimizer and the run's
      position, written after each epoch (or some; see `train`) and when the
      run stops;
    - `encoder.keras`: the encoder without the rest of the model;
    - `encoder.start.keras`: the encoder that the run goes on from, if it does,
      and `encoder.best.keras`, the best one, if `kerassl.runs.guard` watches;
    - `history.csv`: a row for each epoch;
    - `images.npz`: what the folder of images holds, if there is one, so that
      resuming needn't list it again;
    - `checkpoints/epoch_0010.keras` and so on, if `keep` is given.

    Each file is replaced atomically. A run that was stopped or killed and then
    resumed ends with the same weights and the same history, except for the
    times in it.

    Args:
        folder: path of the run's folder.
        settings: dict, the content of `recipe.json`.
        data: `kerassl.data.ImageData` to train on.
        model: a compiled `SelfSupervisedModel`.
        position: `Position`, or `None` for a new run. `train` then writes
            `recipe.json` first, and removes the files of an older run.
        overwrite: bool. Whether a new run may replace an older one.
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
        # The state that the folder must be in when `train` begins.
        self.saved = state(settings, position) if position else None
        self.steps_per_epoch = steps_per_epoch(self.recipe, data)
        self.stopping = False
        #: Whether the best encoder still stands for the run.
        self.keeps_best = True

    @property
    def total_steps(self) -> int:
        """The number of steps in the whole run."""
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

        Called before `train`, it makes that return at once. The next `train`
        goes on.
        Several processes stop together, after at most ten more steps.
        May be called from a callback, another thread or a signal handler.
        """
        self.stopping = True

    def train(
        self,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        keep: int = 0,
        checkpoint_every: int = 1,
    ) -> None:
        """Trains until the last epoch, or until `stop` is called.

        Without the run's guard, its first save removes an earlier best encoder,
        and the last one stands for the run.

        Args:
            callbacks: Keras callbacks. Metrics that they add to the logs of an
                epoch are written to `history.csv`. Setting
                `model.stop_training` has the effect of `stop`.
            keep: int >= 0, the number of older checkpoints to keep in
                `checkpoints/`. To go back to one, copy it over
                `checkpoint.keras`.
            checkpoint_every: int > 0, the number of epochs after which the
                files are written. A thread writes them while the training goes
                on. They are also written at the end, and when the run stops.

        Raises:
            ValueError: if a callback restores the best weights at the end,
                which the files, written before, would lack.
            DivergedError: if the loss or a weight becomes NaN or infinite. The
                last checkpoint is kept.
            InUseError: if another process trains in the folder, or the run
                was continued by another process since `resume`.
            SaveError: if a file can't be written, for example on a full disk.
                The last checkpoint is kept.
            OSError: if the folder can't be created or locked, or another run
                began in it since `start`.
        """
        for callback in callbacks:
            if getattr(callback, "restore_best_weights", False):
                raise ValueError(
                    f"{type(callback).__name__} restores the best weights "
                    "after the files are written: leave out "
                    "`restore_best_weights`. To keep the best encoder, use "
                    "`kerassl.runs.guard`, or by a metric `ModelCheckpoint`."
                )
        self.keeps_best = any(map(self._is_guard, callbacks))
        try:
            with self._own_folder(), tensor_float32(), background() as writer:
                watch = Watch(self)
                run_callbacks = RunCallbacks([*callbacks, watch], self)
                run_callbacks.begin()
                while not self.finished and not distributed.any_process(
                    self.stopping
                ):
                    self._train_epoch(run_callbacks, watch)
                    ends = self.finished or self.stopping or self.position.step
                    if not ends and self.position.epoch % checkpoint_every == 0:
                        self._save_beside(writer, keep)
                writer.wait()
                self._save(keep)
                run_callbacks.end()
        finally:
            self.stopping = False

    @property
    def is_writer(self) -> bool:
        """Whether this is the process that writes the files."""
        return distributed.process()[0] == 0

    @contextlib.contextmanager
    def _own_folder(self) -> Iterator[None]:
        """Locks and prepares the folder for the duration of the training."""
        # Barrier: every process has checked for a run.
        distributed.any_process(False)
        refusal: OSError | ValueError | None = None
        with contextlib.ExitStack() as stack:
            if self.is_writer:
                try:
                    stack.enter_context(folder_at(self.folder))
                    stack.enter_context(locked(self.folder))
                    stack.enter_context(self._removed_if_unused())
                    self._prepare_folder()
                except (OSError, ValueError) as error:
                    refusal = error
            # Tells the other processes, which would wait for the first step.
            if distributed.any_process(refusal is not None):
                raise refusal or InUseError(
                    f"The first process can't write into {self.folder}."
                )
            yield

    def _prepare_folder(self) -> None:
        remove_partial(self.folder)
        if self.is_new:
            refuse_files(self.folder, self.overwrite)
            # The checkpoint first: it must never be beside another recipe.
            # The recipe is replaced: without it the rest isn't a run's.
            self._remove(CHECKPOINT, *set(FILES) - {RECIPE}, *FOLDERS)
            self.is_new = False
            with self._writing():
                self._save_settings()
                self._save_start()
                self.data.remember(self.folder / IMAGES)
            return
        if self.saved != state_of(self.folder):
            raise InUseError(
                f"The run in {self.folder} was continued by another process "
                "since it was loaded. Resume it again."
            )
        # If it was extended, the new schedule is written before the recipe.
        self._save()
        with self._writing():
            self._save_settings()
            self.data.remember(self.folder / IMAGES)
            if self.keeps_best and not self.finished and not self.stopping:
                # The guard replaces the encoder that they belong to.
                (self.folder / SCORES).unlink(missing_ok=True)
            distributed.on_one_device(
                lambda: restore_outputs(
                    self.folder, self.model.feature_encoder, self.position
                )
            )

    @contextlib.contextmanager
    def _removed_if_unused(self) -> Iterator[None]:
        """Removes the recipe if training fails before the first checkpoint.

        Otherwise the folder would be refused on the next try. A killed process
        leaves it, so that its run can be resumed.
        """
        try:
            yield
        except Exception:
            if not self.is_new and not self._has_checkpoint:
                self._remove(*FILES, *FOLDERS)
                self.is_new, self.saved = True, None
            raise

    def _remove(self, *names: str) -> None:
        for name in names:
            if name in FOLDERS:
                shutil.rmtree(self.folder / name, ignore_errors=True)
            else:
                (self.folder / name).unlink(missing_ok=True)

    @property
    def _has_checkpoint(self) -> bool:
        return (self.folder / CHECKPOINT).exists()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turns an OSError into a SaveError."""
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
        # One `fit` per epoch, since the first epoch after resuming is shorter.
        # Averages that it took within an epoch would change what follows.
        with averages_apart(self.model.optimizer):
            self.model.fit(
                batches,
                initial_epoch=position.epoch,
                epochs=position.epoch + 1,
                shuffle=False,  # `batches` are shuffled already.
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
        take_averages(self.model)
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
        for weight in not_finite(self.model.weights):
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

    def _save_beside(self, writer: Background, keep: int) -> None:
        """Writes the files while the training goes on.

        But for the first ones, so that a run that can't be saved ends early.
        """
        if not self._has_checkpoint:
            self._save(keep)
            return
        position = self.position

        def write(model: keras.Model) -> None:
            try:
                with self._writing():
                    self._write(model, position, keep)
            except BaseException:
                self.stop()
                raise

        if self.is_writer and not writer.start(write, self.model):
            self._save(keep)

    def _save(self, keep: int = 0) -> None:
        """Writes the files, if they aren't of this position already."""
        if self.is_writer and self.saved != state(self.settings, self.position):
            with self._writing():
                distributed.on_one_device(
                    lambda: self._write(self.model, self.position, keep)
                )

    def _is_guard(self, callback: keras.callbacks.Callback) -> bool:
        if not isinstance(callback, StartGuard) or callback.best is None:
            return False
        return callback.best.absolute() == (self.folder / BEST).absolute()

    def _write(self, model: keras.Model, position: Position, keep: int) -> None:
        save_checkpoint(self.folder / CHECKPOINT, model, position)
        self.saved = state(self.settings, position)
        write_outputs(self.folder, model.feature_encoder, position)
        if not self.keeps_best:  # It is of before, and nobody compares now.
            (self.folder / BEST).unlink(missing_ok=True)
        keep_checkpoint(self.folder, position, keep)

    def _save_start(self) -> None:
        """Keeps the encoder that the run goes on from, if it does."""
        if "weights" in self.settings:
            with replacing(self.folder / START) as temporary:
                distributed.on_one_device(
                    lambda: self.model.encoder.save(temporary)
                )

    def _save_settings(self) -> None:
        text = json.dumps(self.settings, indent=2) + "\n"
        write_text(self.folder / RECIPE, text)
        self.saved = state(self.settings, self.position)
