"""The base of the monitors that need labels."""

from typing import Any

from kerassl.data import check_images
from kerassl.evaluation.labels import (
    encode_labels,
    label_array,
    labels_by_name,
)
from kerassl.training.in_memory import read_labeled
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
        train = read_labeled(train, "train")
        test = read_labeled(test, "test")
        sets = {
            name: self._checked(name, data)
            for name, data in (("train", train), ("test", test))
        }
        labels = dict(zip(sets, labels_by_name(train, test)))
        _, (learned, asked) = encode_labels(labels)
        self.train = sets["train"][0], learned
        self.test = sets["test"][0], asked
        self.batch_size = batch_size

    def _checked(self, name: str, data: Any) -> Labeled:
        parts = tuple(data)
        if len(parts) != 2 or parts[1] is None:
            raise ValueError(
                f"`{name}` must be (images, labels): {type(self).__name__} "
                "needs labels."
            )
        images, labels = parts
        check_images(images, name)
        return images, label_array(labels, name, len(images))

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
