"""What happens during the epochs of a run."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import keras

from kerassl import distributed
from kerassl.training.monitors import with_monitors

if TYPE_CHECKING:
    from kerassl.runs.run import Run


class RunCallbacks(keras.callbacks.CallbackList):
    """Makes one training of a run's many `fit`s.

    Each epoch is a `fit` of its own. If callbacks saw it begin and end each
    time, `EarlyStopping` and the monitors would forget what they counted, and
    take every epoch for the last.

    Args:
        callbacks: Keras callbacks.
        run: `kerassl.runs.Run`.
    """

    def __init__(
        self, callbacks: Sequence[keras.callbacks.Callback], run: "Run"
    ):
        super().__init__(
            with_monitors(list(callbacks), run.model.metric_names),
            add_history=True,  # What `fit` returns.
            model=run.model,
            epochs=run.recipe.epochs,
            steps=run.steps_per_epoch,
            verbose=0,
        )
        history = run.position.history
        self.last_logs = history[-1] if history else None

    def begin(self) -> None:
        """Begins the training, with the logs of the last epoch, if any."""
        super().on_train_begin(self.last_logs)

    def end(self) -> None:
        """Ends the training."""
        super().on_train_end()

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Nothing: a `fit` begins."""

    def on_train_end(self, logs: dict | None = None) -> None:
        """Nothing: a `fit` ends."""


class Watch(keras.callbacks.Callback):
    """Counts steps, sees divergence, and carries metrics into the epoch.

    Args:
        run: `kerassl.runs.Run`.
    """

    def __init__(self, run: "Run"):
        super().__init__()
        # Keras may then call `on_train_batch_end`, which waits for the loss, in
        # a thread of its own; but several processes must agree between steps.
        self.async_safe = distributed.process()[1] == 1
        self.run = run
        self.steps = 0
        self.diverged: list[int] = []
        self.logs: dict[str, float] = {}

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Starts anew, or goes on with the sums of the epoch's first part."""
        self.steps, self.diverged, self.logs = 0, [], {}
        # `fit` has cleared what `stop` set before.
        if distributed.any_process(self.run.stopping):
            self.run.stop()
        variables = self.run.model.metrics_variables
        if self.run.position.metrics:
            for variable, value in zip(
                variables, self.run.position.metrics, strict=True
            ):
                variable.assign(value)

    def on_train_batch_begin(
        self, batch: int, logs: dict | None = None
    ) -> None:
        """Counts: every step that begins also ends."""
        self.steps = batch + 1

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Stops on a loss that isn't finite, or if a callback asks for it."""
        # `run.model`, since `self.model` would fetch the state from JAX.
        model = self.run.model
        if logs and not math.isfinite(logs["loss"]):
            self.diverged.append(batch)
            model.stop_training = True
        # A process that stopped alone would leave the others waiting.
        if distributed.any_process(self.run.stopping or model.stop_training):
            self.run.stop()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Keeps the epoch's means, the loss first."""
        logs = logs or {}
        self.logs = {
            name: float(f"{logs[name]:.7g}")
            for name in sorted(logs, key=lambda name: name != "loss")
        }
        # A callback may have asked for it at the end of the epoch.
        self.run.stopping |= self.run.model.stop_training
