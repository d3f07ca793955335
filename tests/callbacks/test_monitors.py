"""The accuracies and the warnings of monitors in `fit`."""

import warnings

import keras
import numpy as np
import pytest
from PIL import Image

from kerassl import data, evaluation
from kerassl.callbacks import (
    CollapseMonitor,
    KNNMonitor,
    LinearProbeMonitor,
    Monitor,
)
from kerassl.training.monitors import with_monitors
from tests.contracts.methods import METHODS, tiny_encoder


def make(method="simclr"):
    model = METHODS[method](tiny_encoder())
    model.compile(keras.optimizers.SGD(0.05))
    return model


@pytest.fixture(scope="module")
def labeled():
    return [
        data.load("fashion_mnist_small", split, limit=limit)
        for split, limit in (("train", 100), ("test", 50))
    ]


def test_they_log_the_encoders_accuracy(images, labeled):
    train, test = labeled
    model = make()
    monitors = [
        KNNMonitor(train, (test.images, test.labels), k=5, every=2),
        LinearProbeMonitor(train, test, penalties=[0.1], every=3),
        CollapseMonitor(test, every=3),
    ]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Epoch")
        history = model.fit(
            images, batch_size=32, epochs=3, verbose=0, callbacks=monitors
        ).history
    # At the first, every second or third, and the last; in between the last.
    for name in ("linear_accuracy", "effective_rank", "feature_spread"):
        assert len(history[name]) == 3
        assert history[name][0] == history[name][1]
    assert len(history["knn_accuracy"]) == 3
    features = model.embed(train), train.labels, model.embed(test), test.labels
    knn = evaluation.knn(*features, k=5)["accuracy"]
    linear = evaluation.linear_probe(*features, penalties=[0.1])["accuracy"]
    assert history["knn_accuracy"][-1] == knn
    assert history["linear_accuracy"][-1] == linear
    assert 0.2 < knn <= 1 and 0.2 < linear <= 1
    rank = evaluation.effective_rank(features[2])
    assert history["effective_rank"][-1] == pytest.approx(rank)
    spread = evaluation.feature_spread(features[2])
    assert history["feature_spread"][-1] == pytest.approx(spread)
    assert len(history["loss"]) == 3 and np.isfinite(history["loss"]).all()


def test_folders_that_are_decoded_as_needed(tmp_path, monkeypatch):
    monkeypatch.setattr("kerassl.data.photo_checks._IN_MEMORY_BYTES", 0)
    rng = np.random.default_rng(0)
    for i in range(24):
        path = tmp_path / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        pixels = rng.integers(0, 256, (28, 28, 3), "uint8")
        Image.fromarray(pixels).save(path)
    lazy = data.load(f"folder:{tmp_path}", image_size=28)
    assert not isinstance(lazy.images, np.ndarray)
    model = METHODS["simclr"](tiny_encoder((28, 28, 3)))
    model.compile(keras.optimizers.SGD(0.05))
    monitors = [KNNMonitor(lazy, lazy, k=1), CollapseMonitor(lazy)]
    for images in (lazy.images, lazy):
        history = model.fit(
            images, batch_size=8, verbose=0, callbacks=monitors
        ).history
        assert model.batch_size == 8
        assert history["knn_accuracy"] == [1.0]
        assert history["effective_rank"][0] > 1


class Falling(Monitor):
    """Logs 0.9, 0.8 and so on: of the epochs at which it looks."""

    modes = {"falling_accuracy": "max"}

    def look(self, epoch, logs):
        return {"falling_accuracy": round(0.9 - epoch / 10, 1)}


def test_other_callbacks_find_the_numbers_by_default(images, tmp_path):
    """Wherever they stand, in each epoch, and told which way is better."""
    watched = "falling_accuracy"
    csv_file = tmp_path / "log.csv"
    best = tmp_path / "best.keras"
    stop = keras.callbacks.EarlyStopping(watched, patience=3)
    others = [
        keras.callbacks.CSVLogger(csv_file),
        keras.callbacks.ModelCheckpoint(best, watched, save_best_only=True),
        keras.callbacks.ReduceLROnPlateau(watched, patience=5),
        stop,
    ]
    model = make()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*(metric|wait|available)")
        history = model.fit(
            images[:32],
            batch_size=32,
            epochs=8,
            verbose=0,
            callbacks=[*others, Falling(every=3)],
        ).history
    # It looks at the first and the third; the first is the best.
    assert history[watched] == [0.9, 0.9, 0.7, 0.7]
    assert stop.best == 0.9 and stop.stopped_epoch == 3
    header, *rows = csv_file.read_text().splitlines()
    place = header.split(",").index(watched)
    found = [row.split(",")[place] for row in rows]
    assert found == ["0.9", "0.9", "0.7", "0.7"]
    assert best.exists()
    with pytest.warns(UserWarning, match="Give patience=3 or more"):
        with_monitors(
            [keras.callbacks.EarlyStopping(watched, patience=2), Falling(3)]
        )


def test_the_models_own_metrics_have_a_direction():
    callbacks = [
        keras.callbacks.EarlyStopping(name)
        for name in ("val_contrastive_accuracy", "relative_error", "mine")
    ]
    with_monitors(callbacks, ("contrastive_accuracy", "relative_error"))
    assert [callback.mode for callback in callbacks] == ["max", "min", "auto"]


def test_monitors_go_first_but_for_what_changes_weights():
    average = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    log, stop = keras.callbacks.Callback(), keras.callbacks.TerminateOnNaN()
    first, second = Falling(), Falling()
    found = with_monitors([log, average, stop, first, second])
    assert found == [log, average, first, second, stop]
    assert with_monitors([log, first, stop]) == [first, log, stop]
    assert with_monitors(None) is None
    told = keras.callbacks.CallbackList([log])
    assert with_monitors(told) is told


def test_they_read_data_sets(images, labeled):
    tf = pytest.importorskip("tensorflow")
    train, test = labeled

    def as_tfds(labeled, size=32):
        columns = {"image": labeled.images, "label": labeled.labels}
        columns["id"] = np.array([b"photo"] * len(labeled.images))
        return tf.data.Dataset.from_tensor_slices(columns).batch(size)

    monitors = [
        KNNMonitor(as_tfds(train), as_tfds(test), k=5),
        KNNMonitor(train, test, k=5),
        CollapseMonitor(as_tfds(test)),
    ]
    for images, labels in (monitors[0].train, monitors[0].test):
        assert labels.dtype == "int64"
    for a, b in zip(monitors[0].train, monitors[1].train):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(monitors[2].images, test.images)


@pytest.mark.parametrize("monitor", [KNNMonitor, LinearProbeMonitor])
def test_another_size_is_refused_before_training(images, labeled, monitor):
    train, test = labeled
    small = test.images[:, :20, :20]
    model = make()
    for callback in (
        monitor(train, (small, test.labels)),
        CollapseMonitor(small),
    ):
        with pytest.raises(ValueError, match=r"\(28, 28, 1\). Resize them"):
            model.fit(images, verbose=0, callbacks=[callback])
    assert int(model.optimizer.iterations) == 0


class Collapsed(keras.layers.Layer):
    """Gives all images the same features."""

    def call(self, x):
        return keras.ops.ones_like(x) + 1e-4 * x


def test_collapse_is_told_once_and_stops(images):
    encoder = tiny_encoder()
    encoder = keras.Model(encoder.input, Collapsed()(encoder.output))
    model = METHODS["rotation"](encoder)
    model.compile(keras.optimizers.SGD(1e-6))
    for weight in model.trainable_weights[len(encoder.trainable_weights) :]:
        weight.assign(keras.ops.zeros(weight.shape))
    with pytest.warns(UserWarning) as told:
        history = model.fit(
            images,
            batch_size=32,
            epochs=4,
            verbose=0,
            callbacks=[CollapseMonitor(images)],
        ).history
    found = [str(w.message) for w in told if "Epoch" in str(w.message)]
    assert len(history["loss"]) == 4
    assert len(found) == 3
    # The loss has to stay for two epochs: at first it may lie there.
    assert sum("Epoch 1: The features" in words for words in found) == 2
    (loss,) = (words for words in found if "The loss" in words)
    assert loss.startswith("Epoch 2: The loss of Rotation is 1.38")
    assert loss.endswith(model.collapse_advice)
    with pytest.warns(UserWarning, match="the same direction"):
        history = model.fit(
            images,
            batch_size=32,
            epochs=4,
            verbose=0,
            callbacks=[CollapseMonitor(images, stop=True)],
        ).history
    assert len(history["loss"]) == 1


@pytest.mark.parametrize("monitor", [KNNMonitor, LinearProbeMonitor])
def test_labels_are_needed(images, monitor):
    with pytest.raises(ValueError, match="train set has no labels"):
        monitor((images, None), (images, np.zeros(len(images))))
    labels = np.zeros(len(images), int)
    with pytest.raises(ValueError, match="every"):
        monitor((images, labels), (images, labels), every=0)
    with pytest.raises(ValueError, match="`test` must have one entry for each"):
        monitor((images, labels), (images, labels[1:]))
    with pytest.raises(ValueError, match="255"):
        monitor((images / 255.0, labels), (images, labels))


@pytest.mark.parametrize(
    "monitor,settings,message",
    [
        (KNNMonitor, dict(temperature=0), "`temperature` must be above 0"),
        (KNNMonitor, dict(k=65), "between 1 and the 64"),
        (LinearProbeMonitor, dict(penalties=[]), "`penalties` must be above 0"),
        (LinearProbeMonitor, dict(penalties=[0.1, 0]), "`penalties`"),
        (LinearProbeMonitor, dict(), "at least two classes. Found: \\[7\\]"),
    ],
)
def test_mistakes_show_before_training(images, monitor, settings, message):
    labeled = images, np.full(len(images), 7)
    with pytest.raises(ValueError, match=message):
        monitor(labeled, labeled, **settings)


class Empty(keras.utils.PyDataset):
    def __len__(self):
        return 0

    def __getitem__(self, index):
        raise IndexError(index)


def test_images_are_checked(images):
    with pytest.raises(ValueError, match="`images` is empty"):
        CollapseMonitor(Empty(workers=1))
    with pytest.raises(ValueError, match="255"):
        CollapseMonitor(images / 255)
    with pytest.raises(ValueError, match="every"):
        CollapseMonitor(images, every=0)
