"""What the monitors that score features with labels share."""

from typing import Any

import keras

from kerassl.data import check_images
from kerassl.data.arrays import check_labels

# Features and labels, or images and labels.
Labelled = tuple[Any, Any]


class LabelledMonitor(keras.callbacks.Callback):
    """Scores the encoder's features at the end of epochs.

    The score appears under the name `log_name` beside the loss: in the progress
    bar, the history, `CSVLogger`, `TensorBoard` and `EarlyStopping`.

    Args:
        train: `(images, labels)` to learn from: arrays `(N, H, W, C)` and
            `(N,)`, or what `kerassl.data.load` returns.
        test: `(images, labels)` to classify, likewise.
        every: int > 0. Epochs between two evaluations; the last epoch is
            evaluated too.
        batch_size: int, for the encoder.
    """

    log_name = ""

    def __init__(self, train: Any, test: Any, every: int, batch_size: int):
        super().__init__()
        if every < 1:
            raise ValueError(f"`every` must be at least 1. Received: {every}")
        self.train = self._checked("train", train)
        self.test = self._checked("test", test)
        self.every = every
        self.batch_size = batch_size

    def _checked(self, name: str, data: Any) -> Labelled:
        parts = tuple(data)
        if len(parts) != 2 or parts[1] is None:
            raise ValueError(
                f"`{name}` must be (images, labels): {type(self).__name__} "
                "needs labels."
            )
        images, labels = parts
        check_images(images, name)
        return images, check_labels(labels, len(images), name)

    def score(self, train: Labelled, test: Labelled) -> float:
        """Returns the accuracy; a subclass's.

        Args:
            train: features and labels.
            test: likewise.
        """
        raise NotImplementedError

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Adds the score to the logs."""
        last = epoch + 1 == self.params.get("epochs")
        if logs is None or ((epoch + 1) % self.every and not last):
            return
        train, test = (
            (self.model.embed(images, batch_size=self.batch_size), labels)
            for images, labels in (self.train, self.test)
        )
        logs[self.log_name] = self.score(train, test)
