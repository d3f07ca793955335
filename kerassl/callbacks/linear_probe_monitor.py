"""Watches what a linear classifier reads from the features during `fit`."""

from typing import Any

from kerassl.callbacks.labeled_monitor import Labeled, LabeledMonitor
from kerassl.evaluation.linear import PENALTIES, linear_probe


class LinearProbeMonitor(LabeledMonitor):
    """Logs the encoder's linear accuracy at the end of epochs.

    A probe is fitted anew each time, on labeled images that are apart from the
    ones that the model trains on; the model sees no label. The score appears as
    `linear_accuracy` beside the loss, as `KNNMonitor`'s does.

    Args:
        train: `(images, labels)` to fit: arrays `(N, H, W, C)` and `(N,)`, what
            `kerassl.data.load` returns, or a data set of such pairs or of dicts
            of `"image"` and `"label"`. Images are of the encoder's size.
        test: `(images, labels)` to classify, likewise.
        penalties: floats > 0; see `kerassl.evaluation.linear_probe`. One alone
            is the quickest.
        every: int > 0. Epochs between two evaluations; the first and the last
            epoch are evaluated too, and the others log the last score.
            `patience` of other callbacks counts epochs, so that it has to be
            `every` or more.
        batch_size: int, for the encoder.

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

    def score(self, train: Labeled, test: Labeled) -> float:
        """Returns the accuracy of `kerassl.evaluation.linear_probe`."""
        return linear_probe(*train, *test, self.penalties)["accuracy"]
