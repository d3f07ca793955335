"""What the monitors that score features with labels share."""

from typing import Any

import keras

from kerassl.data import check_images
from kerassl.evaluation.labels import (
    encode_labels,
    label_array,
    labels_by_name,
)

# Features and labels, or images and labels.
Labelled = tuple[Any, Any]


class LabelledMonitor(keras.callbacks.Callback):
    """Scores the encoder's features at the end of epochs.

    The score appears under the name `log_name` beside the loss: in the progress
    bar, the history, `CSVLogger`, `TensorBoard` and `EarlyStopping`.

    Args:
        train: `(images, labels)` to learn from: arrays `(N, H, W, C)` and
            `(N,)` or `(N, 1)`, of ints, bools, whole floats, strings or bytes;
            or what `kerassl.data.load` returns.
        test: `(images, labels)` to classify, likewise. Labels are compared by
            value, or by the names of classes where these differ.
        every: int > 0. Epochs between two evaluations; the last epoch is
            evaluated too.
        batch_size: int, for the encoder.
    """

    log_name = ""

    def __init__(self, train: Any, test: Any, every: int, batch_size: int):
        super().__init__()
        if every < 1:
            raise ValueError(f"`every` must be at least 1. Received: {every}")
        sets = {
            name: self._checked(name, data)
            for name, data in (("train", train), ("test", test))
        }
        labels = dict(zip(sets, labels_by_name(train, test)))
        _, (learned, asked) = encode_labels(labels)
        self.train = sets["train"][0], learned
        self.test = sets["test"][0], asked
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
        return images, label_array(labels, name, len(images))

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
