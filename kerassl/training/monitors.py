"""Callbacks that add numbers to the logs, for the other callbacks."""

import warnings
from typing import Any

import keras

# The model's own metrics that are better when larger; the others are errors or
# terms of the loss.
_LARGER_IS_BETTER = ("accuracy", "output_std", "prototype_usage")


class Monitor(keras.callbacks.Callback):
    """Measures something at the end of epochs, and logs it.

    It looks after the first epoch, after each `every` epochs and after the
    last one. In the epochs between it logs what it found last, so that each
    epoch has all numbers: callbacks such as `CSVLogger` and `EarlyStopping`
    find them wherever they stand in the list (`with_monitors`).

    A subclass names what it logs in `modes`, and measures it in `look`.

    Args:
        every: int > 0. Epochs between two looks.

    Raises:
        ValueError: if `every` is less than 1.
    """

    #: What it logs, each with `"max"` or `"min"`: which way is better.
    modes: dict[str, str] = {}

    def __init__(self, every: int = 1):
        super().__init__()
        if every < 1:
            raise ValueError(f"`every` must be at least 1. Received: {every}")
        self.every = every
        #: What it logged last.
        self.found: dict[str, float] = {}

    def look(self, epoch: int, logs: dict) -> dict[str, float]:
        """Measures; a subclass's.

        Args:
            epoch: int, from 0.
            logs: dict, what the epoch has logged so far.

        Returns:
            A dict with the names of `modes`.
        """
        raise NotImplementedError(f"{type(self).__name__} lacks `look`.")

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Starts anew, or from the last epoch's logs of a run that goes on."""
        logs = logs or {}
        self.found = {name: logs[name] for name in self.modes if name in logs}

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Adds the numbers to the logs."""
        if logs is None:
            return
        last = epoch + 1 == self.params.get("epochs")
        if last or not self.found or (epoch + 1) % self.every == 0:
            self.found = self.look(epoch, logs)
        logs.update(self.found)


def with_monitors(callbacks: Any, metric_names: tuple[str, ...] = ()) -> Any:
    """Lets callbacks work with the numbers of monitors and of the model.

    Monitors move to the front, but stay behind `SwapEMAWeights`, which changes
    what they look at. A callback that watches one of the numbers with
    `mode="auto"` is told which way is better: Keras only knows it of its own
    metrics.

    Args:
        callbacks: as in `keras.Model.fit`. A `keras.callbacks.CallbackList` is
            left as it is.
        metric_names: the model's.

    Returns:
        A list, or what was given.
    """
    if not callbacks or isinstance(callbacks, keras.callbacks.CallbackList):
        return callbacks
    ordered: list[Any] = []
    for callback in keras.tree.flatten(callbacks):
        at = len(ordered)
        if isinstance(callback, Monitor):
            before = (Monitor, keras.callbacks.SwapEMAWeights)
            while at and not isinstance(ordered[at - 1], before):
                at -= 1
        ordered.insert(at, callback)
    modes = {
        name: "max" if name.endswith(_LARGER_IS_BETTER) else "min"
        for name in metric_names
    }
    every: dict[str, Monitor] = {}
    for callback in ordered:
        if isinstance(callback, Monitor):
            modes |= callback.modes
            every |= dict.fromkeys(callback.modes, callback)
    for callback in ordered:
        watched = str(getattr(callback, "monitor", "")).removeprefix("val_")
        if getattr(callback, "mode", None) == "auto" and watched in modes:
            callback.mode = modes[watched]
        if watched in every:
            _check_patience(callback, every[watched])
    return ordered


def _check_patience(callback: Any, monitor: Monitor) -> None:
    patience = getattr(callback, "patience", None)
    if patience is not None and patience < monitor.every > 1:
        warnings.warn(
            f"{type(callback).__name__} waits for {patience} epochs, and "
            f"{type(monitor).__name__} looks every {monitor.every}: it won't "
            f"wait for the next look. Give patience={monitor.every} or more."
        )
