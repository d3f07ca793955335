"""Callbacks that add scores to the logs, for use by other callbacks."""

import warnings
from typing import Any

import keras

# Metrics of models that should be maximized; all others are errors or terms of
# a loss.
_LARGER_IS_BETTER = ("accuracy", "output_std", "prototype_usage")


class Monitor(keras.callbacks.Callback):
    """Base class of callbacks that measure and log something after epochs.

    It measures after the first epoch, every `every` epochs, and after the last
    epoch. Other epochs log the latest values, so that each epoch has all of
    them. Callbacks such as `CSVLogger` and `EarlyStopping` can use the values
    wherever they are in the list: `fit` calls monitors first.

    A subclass lists what it logs in `modes`, and measures it in `look`.

    Args:
        every: int > 0. The number of epochs between two measurements.

    Raises:
        ValueError: if `every` is less than 1.

    Example:
    ```python
    class FeatureNorm(kerassl.callbacks.Monitor):
        modes = {"feature_norm": "max"}

        def look(self, epoch, logs):
            features = self.model.embed(images)
            return {"feature_norm": np.linalg.norm(features, axis=1).mean()}

    model.fit(images, epochs=10, callbacks=[FeatureNorm(every=5)])
    ```
    """

    #: The names of what it logs, each with `"max"` or `"min"`, whichever is
    #: better.
    modes: dict[str, str] = {}

    def __init__(self, every: int = 1):
        super().__init__()
        if every < 1:
            raise ValueError(f"`every` must be at least 1. Received: {every}")
        self.every = every
        #: The latest values.
        self.found: dict[str, float] = {}

    def look(self, epoch: int, logs: dict) -> dict[str, float]:
        """Measures the values to log; subclasses implement it.

        Args:
            epoch: int, from 0.
            logs: dict, the logs of the epoch so far.

        Returns:
            A dict of name to float, with the names in `modes`.
        """
        raise NotImplementedError(f"{type(self).__name__} lacks `look`.")

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Resets the values, to the last epoch's logs if a run is resumed."""
        logs = logs or {}
        self.found = {name: logs[name] for name in self.modes if name in logs}

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Adds the values to the logs."""
        if logs is None:
            return
        last = epoch + 1 == self.params.get("epochs")
        if last or not self.found or (epoch + 1) % self.every == 0:
            self.found = self.look(epoch, logs)
        logs.update(self.found)


def with_monitors(callbacks: Any, metric_names: tuple[str, ...] = ()) -> Any:
    """Prepares callbacks for the values of monitors and of the model.

    Monitors move to the front, but stay behind `SwapEMAWeights`, which changes
    the weights that they measure. A callback with `mode="auto"` that watches
    one of the values gets its mode here, since Keras only knows its own
    metrics.

    Args:
        callbacks: as in `keras.Model.fit`. A `keras.callbacks.CallbackList` is
            returned unchanged.
        metric_names: the model's.

    Returns:
        A list; or `callbacks` if there are none to prepare.
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
            f"{type(callback).__name__} has a patience of {patience} epochs, "
            f"but {type(monitor).__name__} only measures every "
            f"{monitor.every}. Give patience={monitor.every} or more."
        )
