"""Measures kNN accuracy during `fit`."""

from typing import Any

from kerassl.callbacks.labeled_monitor import Labeled, LabeledMonitor
from kerassl.evaluation.knn import knn


class KNNMonitor(LabeledMonitor):
    """Logs the encoder's kNN accuracy at the end of epochs.

    The score is logged as `knn_accuracy` beside the loss, for the progress
    bar, the history, `CSVLogger`, `TensorBoard`, `EarlyStopping` and
    `ModelCheckpoint`, in any order of callbacks. The labeled images are
    separate from the training data; a few thousand are enough.

    Args:
        train: `(images, labels)` to search: arrays `(N, H, W, C)` and `(N,)`,
            the result of `kerassl.data.load`, or a data set of such pairs or
            of dicts with `"image"` and `"label"`. Images must have the
            encoder's size.
        test: `(images, labels)` to classify, in the same form.
        k: int, the number of neighbors.
        temperature: float > 0; see `kerassl.evaluation.knn`.
        every: int > 0, the number of epochs between evaluations. The first and
            the last epoch are evaluated too; the others log the last score.
            `patience` of other callbacks counts epochs, so it must be at least
            `every`.
        batch_size: int, the batch size of the encoder.

    Raises:
        ValueError: if images or labels have another form, or `k`, `temperature`
            or `every` is out of range; and when `fit` starts, if the images
            don't have the encoder's size.

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
        if not temperature > 0:
            raise ValueError(
                f"`temperature` must be above 0. Received: {temperature}"
            )
        self.k = k
        self.temperature = temperature

    def score(self, train: Labeled, test: Labeled) -> float:
        """Returns the accuracy of `kerassl.evaluation.knn`."""
        return knn(*train, *test, self.k, self.temperature)["accuracy"]
