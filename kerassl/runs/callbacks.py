"""The callbacks that every run trains with."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import keras

from kerassl import distributed
from kerassl.training.monitors import with_monitors

if TYPE_CHECKING:
    from kerassl.runs.run import Run

# Steps after which several processes agree on whether to stop. In between they
# wait neither for each other nor for the loss.
VOTE_EVERY = 10


class RunCallbacks(keras.callbacks.CallbackList):
    """Makes a run's many calls of `fit` look like one training.

    A run calls `fit` once per epoch. If callbacks saw each call begin and end,
    `EarlyStopping` and the monitors would reset their counters and treat every
    epoch as the last.

    Args:
        callbacks: Keras callbacks.
        run: `kerassl.runs.Run`.
    """

    def __init__(
        self, callbacks: Sequence[keras.callbacks.Callback], run: "Run"
    ):
        super().__init__(
            with_monitors(list(callbacks), run.model.metric_names),
            add_history=True,  # `fit` returns it.
            model=run.model,
            epochs=run.recipe.epochs,
            steps=run.steps_per_epoch,
            verbose=0,
        )
        self.run = run
        self.vote_every = 1 if distributed.process()[1] == 1 else VOTE_EVERY
        history = run.position.history
        self.last_logs = history[-1] if history else None

    def begin(self) -> None:
        """Begins the training, with the logs of the last epoch if resumed."""
        super().on_train_begin(self.last_logs)

    def end(self) -> None:
        """Ends the training."""
        super().on_train_end()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Stops the run if a callback, a user or another process wants to.

        Keras calls the callbacks themselves, which wait for the loss, in
        separate threads if they allow it.
        """
        super().on_train_batch_end(batch, logs)
        run, model = self.run, self.run.model
        run.stopping |= model.stop_training
        # If only one process stopped, the others would wait for it forever.
        model.stop_training = False
        if (batch + 1) % self.vote_every == 0:
            if self.vote_every > 1 and logs:
                # On JAX no step may be running.
                keras.ops.convert_to_numpy(logs["loss"])
            if distributed.any_process(run.stopping):
                run.stopping = model.stop_training = True

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Does nothing: this is the beginning of one epoch's `fit`."""

    def on_train_end(self, logs: dict | None = None) -> None:
        """Does nothing: this is the end of one epoch's `fit`."""


class Watch(keras.callbacks.Callback):
    """Counts steps, detects divergence, and restores metrics on resuming.

    Args:
        run: `kerassl.runs.Run`.
    """

    def __init__(self, run: "Run"):
        super().__init__()
        # Lets Keras call `on_train_batch_end`, which waits for the loss, in a
        # separate thread.
        self.async_safe = True
        self.run = run
        self.steps = 0
        self.diverged: list[int] = []
        self.logs: dict[str, float] = {}

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Resets the counters; restores the metrics of an interrupted epoch."""
        self.steps, self.diverged, self.logs = 0, [], {}
        variables = self.run.model.metrics_variables
        if self.run.position.metrics:
            for variable, value in zip(
                variables, self.run.position.metrics, strict=True
            ):
                variable.assign(value)

    def on_train_batch_begin(
        self, batch: int, logs: dict | None = None
    ) -> None:
        """Counts the step: every step that begins also ends."""
        self.steps = batch + 1

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Stops if the loss isn't finite."""
        if logs and not math.isfinite(logs["loss"]):
            self.diverged.append(batch)
            self.run.stop()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Stores the epoch's means, the loss first."""
        logs = logs or {}
        self.logs = {
            name: float(f"{logs[name]:.7g}")
            for name in sorted(logs, key=lambda name: name != "loss")
        }
        # A callback may have set it at the end of the epoch.
        self.run.stopping |= self.run.model.stop_training
