"""Watches the features' kNN accuracy during `fit`."""

from typing import Any

from kerassl.callbacks.labeled_monitor import Labeled, LabeledMonitor
from kerassl.evaluation.knn import knn


class KNNMonitor(LabeledMonitor):
    """Logs the encoder's kNN accuracy at the end of epochs.

    The score appears as `knn_accuracy` beside the loss: in the progress bar,
    the history, `CSVLogger`, `TensorBoard`, `EarlyStopping` and
    `ModelCheckpoint`, wherever they stand in the list. The labeled images are
    apart from the ones that the model trains on, and may be few.

    Args:
        train: `(images, labels)`, the bank: arrays `(N, H, W, C)` and `(N,)`,
            what `kerassl.data.load` returns, or a data set of such pairs or of
            dicts of `"image"` and `"label"`. Images are of the encoder's size.
        test: `(images, labels)` to classify, likewise.
        k: int, the number of neighbors.
        temperature: float > 0; see `kerassl.evaluation.knn`.
        every: int > 0. Epochs between two evaluations; the first and the last
            epoch are evaluated too, and the others log the last score.
            `patience` of other callbacks counts epochs, so that it has to be
            `every` or more.
        batch_size: int, for the encoder.

    Example:
    ```python
    train = kerassl.data.load("cifar10", "train", limit=10_000)
    test = kerassl.data.load("cifar10", "test", limit=2_000)
    model.fit(images, callbacks=[kerassl.callbacks.KNNMonitor(train, test)])
    ```
    """

    log_name = "knn_accuracy"

    def __init__(
        self,
        train: Any,
        test: Any,
        k: int = 20,
        temperature: float = 0.07,
        every: int = 5,
        batch_size: int = 256,
    ):
        super().__init__(train, test, every, batch_size)
        count = len(self.train[0])
        if not 1 <= k <= count:
            raise ValueError(
                f"`k` must be between 1 and the {count} images of `train`. "
                f"Received: {k}"
            )
        self.k = k
        self.temperature = temperature

    def score(self, train: Labeled, test: Labeled) -> float:
        """Returns the accuracy of `kerassl.evaluation.knn`."""
        return knn(*train, *test, self.k, self.temperature)["accuracy"]
