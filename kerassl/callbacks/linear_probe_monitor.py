"""Measures linear accuracy during `fit`."""

from typing import Any

from kerassl.callbacks.labeled_monitor import Labeled, LabeledMonitor
from kerassl.evaluation.labels import check_classes
from kerassl.evaluation.linear import PENALTIES, check_penalties, linear_probe


class LinearProbeMonitor(LabeledMonitor):
    """Logs the encoder's linear accuracy at the end of epochs.

    Each time a new probe is fitted to the frozen features of labeled images,
    which are separate from the training data; the model never sees a label.
    The score is logged as `linear_accuracy`, like that of `KNNMonitor`.

    Args:
        train: `(images, labels)` to fit: arrays `(N, H, W, C)` and `(N,)`, the
            result of `kerassl.data.load`, or a data set of such pairs or of
            dicts with `"image"` and `"label"`. Images must have the encoder's
            size.
        test: `(images, labels)` to classify, in the same form.
        penalties: floats > 0; see `kerassl.evaluation.linear_probe`. A single
            one is fastest.
        every: int > 0, the number of epochs between evaluations. The first and
            the last epoch are evaluated too; the others log the last score.
            `patience` of other callbacks counts epochs, so it must be at least
            `every`.
        batch_size: int, the batch size of the encoder.

    Raises:
        ValueError: if images or labels have another form, there is only one
            class, or `penalties` or `every` is out of range; and when `fit`
            starts, if the images don't have the encoder's size.

    Example:
    ```python
    train = kerassl.data.load("cifar10", "train", limit=5_000)
    test = kerassl.data.load("cifar10", "test", limit=2_000)
    monitor = kerassl.callbacks.LinearProbeMonitor(train, test, every=5)
    model.fit(images, epochs=100, callbacks=[monitor])
    ```
    """

    log_name = "linear_accuracy"

    def __init__(
        self,
        train: Any,
        test: Any,
        penalties: Any = PENALTIES,
        every: int = 10,
        batch_size: int = 256,
    ):
        super().__init__(train, test, every, batch_size)
        self.penalties = tuple(penalties)
        check_penalties(self.penalties)
        check_classes("A linear probe", self.classes, self.train[1])

    def score(self, train: Labeled, test: Labeled) -> float:
        """Returns the accuracy of `kerassl.evaluation.linear_probe`."""
        return linear_probe(*train, *test, self.penalties)["accuracy"]
