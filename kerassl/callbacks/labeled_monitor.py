"""The base of the monitors that need labels."""

from typing import Any

from kerassl.evaluation.labeled import labeled_sets
from kerassl.training.inputs import Inputs
from kerassl.training.monitors import Monitor

# Features and labels, or images and labels.
Labeled = tuple[Any, Any]


class LabeledMonitor(Monitor):
    """Scores the encoder's features at the end of epochs.

    The score is logged as `log_name` beside the loss, for the progress bar,
    the history, `CSVLogger`, `TensorBoard`, `EarlyStopping` and
    `ModelCheckpoint`, in any order of callbacks. An epoch without an
    evaluation logs the last score.

    Args:
        train: `(images, labels)` to learn from: arrays `(N, H, W, C)` and
            `(N,)` or `(N, 1)`, of ints, bools, whole floats, strings or bytes;
            the result of `kerassl.data.load`; or a data set of such pairs or
            of dicts with `"image"` and `"label"`, which is read into memory.
            Images must have the encoder's size.
        test: `(images, labels)` to classify, in the same form. Labels
            are compared by value, or by class name if the class names differ.
        every: int > 0, the number of epochs between evaluations. The first and
            the last epoch are evaluated too. `patience` of other callbacks
            counts epochs, so it must be at least `every`.
        batch_size: int, the batch size of the encoder.

    Raises:
        ValueError: if images or labels have another form; and when `fit`
            starts, if the images don't have the encoder's size.
    """

    log_name = ""

    def __init__(self, train: Any, test: Any, every: int, batch_size: int):
        super().__init__(every)
        self.modes = {self.log_name: "max"}
        learned, asked, self.classes = labeled_sets(train, test)
        self.train: Labeled = learned.images, learned.labels
        self.test: Labeled = asked.images, asked.labels
        self.batch_size = batch_size

    def set_model(self, model: Any) -> None:
        """Checks that the images have the encoder's size."""
        for images, _ in (self.train, self.test):
            Inputs(model.encoder.input_shape[1:]).read(images)
        super().set_model(model)

    def score(self, train: Labeled, test: Labeled) -> float:
        """Returns the accuracy. Subclasses implement it.

        Args:
            train: pair of features and labels.
            test: pair of features and labels.
        """
        raise NotImplementedError

    def look(self, epoch: int, logs: dict) -> dict[str, float]:
        """Returns the score as a dict of logs."""
        train, test = (
            (self.model.embed(images, batch_size=self.batch_size), labels)
            for images, labels in (self.train, self.test)
        )
        return {self.log_name: self.score(train, test)}
