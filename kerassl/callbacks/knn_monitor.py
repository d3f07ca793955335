"""Watches the features' kNN accuracy during `fit`."""

from typing import Any

import keras

from kerassl.evaluation import knn


class KNNMonitor(keras.callbacks.Callback):
    """Logs the encoder's kNN accuracy at the end of epochs.

    The score appears as `knn_accuracy` beside the loss: in the progress bar,
    the history, `CSVLogger`, `TensorBoard` and `EarlyStopping`. The labelled
    images are apart from the ones that the model trains on, and may be few.

    Args:
        train: `(images, labels)`, the bank: arrays `(N, H, W, C)` and `(N,)`,
            or what `kerassl.data.load` returns.
        test: `(images, labels)` to classify, likewise.
        k: int, the number of neighbours.
        temperature: float > 0; see `kerassl.evaluation.knn`.
        every: int > 0. Epochs between two evaluations; the last epoch is
            evaluated too.
        batch_size: int, for the encoder.

    Example:
    ```python
    train = kerassl.data.load("cifar10", "train", limit=10_000)
    test = kerassl.data.load("cifar10", "test", limit=2_000)
    model.fit(images, callbacks=[kerassl.callbacks.KNNMonitor(train, test)])
    ```
    """

    def __init__(
        self,
        train: Any,
        test: Any,
        k: int = 20,
        temperature: float = 0.07,
        every: int = 1,
        batch_size: int = 256,
    ):
        super().__init__()
        if every < 1:
            raise ValueError(f"`every` must be at least 1. Received: {every}")
        self.train = tuple(train)
        self.test = tuple(test)
        for name, data in (("train", self.train), ("test", self.test)):
            if len(data) != 2 or data[1] is None:
                raise ValueError(
                    f"`{name}` must be (images, labels): kNN needs labels."
                )
        self.k = k
        self.temperature = temperature
        self.every = every
        self.batch_size = batch_size

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Adds `knn_accuracy` to the logs."""
        last = epoch + 1 == self.params.get("epochs")
        if logs is None or ((epoch + 1) % self.every and not last):
            return
        (bank, bank_labels), (queries, labels) = self.train, self.test
        scores = knn(
            self.model.embed(bank, batch_size=self.batch_size),
            bank_labels,
            self.model.embed(queries, batch_size=self.batch_size),
            labels,
            k=self.k,
            temperature=self.temperature,
        )
        logs["knn_accuracy"] = scores["accuracy"]
