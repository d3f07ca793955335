"""The kNN accuracy in `fit`'s logs."""

import keras
import numpy as np
import pytest

from kerassl import data
from kerassl.callbacks import KNNMonitor
from kerassl.evaluation import knn
from tests.contracts.methods import METHODS, tiny_encoder


def test_it_logs_the_encoders_accuracy(images):
    train = data.load("fashion_mnist_small", "train", limit=100)
    test = data.load("fashion_mnist_small", "test", limit=50)
    model = METHODS["simclr"](tiny_encoder())
    model.compile(keras.optimizers.SGD(0.05))
    monitor = KNNMonitor(train, (test.images, test.labels), k=5, every=2)
    history = model.fit(
        images, batch_size=32, epochs=3, verbose=0, callbacks=[monitor]
    ).history
    # Epochs 2 and 3: every second one, and the last.
    assert len(history["knn_accuracy"]) == 2
    scores = knn(
        model.embed(train), train.labels, model.embed(test), test.labels, k=5
    )
    assert history["knn_accuracy"][-1] == scores["accuracy"]
    assert 0.2 < scores["accuracy"] <= 1
    assert len(history["loss"]) == 3 and np.isfinite(history["loss"]).all()


def test_it_needs_labels(images):
    with pytest.raises(ValueError, match="needs labels"):
        KNNMonitor((images, None), (images, np.zeros(len(images))))
    with pytest.raises(ValueError, match="every"):
        KNNMonitor((images, images), (images, images), every=0)
