"""What the monitors that score features with labels share."""

from typing import Any

from kerassl.data import check_images
from kerassl.evaluation.labels import (
    encode_labels,
    label_array,
    labels_by_name,
)
from kerassl.training import Monitor

# Features and labels, or images and labels.
Labelled = tuple[Any, Any]


class LabelledMonitor(Monitor):
    """Scores the encoder's features at the end of epochs.

    The score appears under the name `log_name` beside the loss: in the progress
    bar, the history, `CSVLogger`, `TensorBoard`, `EarlyStopping` and
    `ModelCheckpoint`, wherever they stand in the list. An epoch without an
    evaluation logs the last score.

    Args:
        train: `(images, labels)` to learn from: arrays `(N, H, W, C)` and
            `(N,)` or `(N, 1)`, of ints, bools, whole floats, strings or bytes;
            or what `kerassl.data.load` returns.
        test: `(images, labels)` to classify, likewise. Labels are compared by
            value, or by the names of classes where these differ.
        every: int > 0. Epochs between two evaluations; the first and the last
            epoch are evaluated too. `patience` of other callbacks counts
            epochs, so that it has to be `every` or more.
        batch_size: int, for the encoder.
    """

    log_name = ""

    def __init__(self, train: Any, test: Any, every: int, batch_size: int):
        super().__init__(every)
        self.modes = {self.log_name: "max"}
        sets = {
            name: self._checked(name, data)
            for name, data in (("train", train), ("test", test))
        }
        labels = dict(zip(sets, labels_by_name(train, test)))
        _, (learned, asked) = encode_labels(labels)
        self.train = sets["train"][0], learned
        self.test = sets["test"][0], asked
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

    def look(self, epoch: int, logs: dict) -> dict[str, float]:
        """Returns the score, by its name."""
        train, test = (
            (self.model.embed(images, batch_size=self.batch_size), labels)
            for images, labels in (self.train, self.test)
        )
        return {self.log_name: self.score(train, test)}
