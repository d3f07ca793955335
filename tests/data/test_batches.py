import warnings

import keras
import numpy as np
import pytest
from PIL import Image

import kerassl.data
from kerassl.data import ImageBatches, ImageData

COUNT = 22


class Recorder(keras.layers.Layer):
    """Keeps the first pixel of each image of the last batch."""

    def __init__(self, batch_size):
        super().__init__()
        self.batch_size = batch_size
        self.seen = self.add_weight(
            shape=(batch_size,), initializer="zeros", trainable=False
        )
        self.scale = self.add_weight(shape=(), initializer="ones")

    def call(self, images):
        first = keras.ops.cast(images[:, 0, 0, 0], "float32")
        # The last batch of an epoch may be smaller.
        padded = keras.ops.concatenate(
            [first + 1, keras.ops.zeros((self.batch_size,))]
        )
        self.seen.assign(padded[: self.batch_size])
        return self.scale * first[:, None]


class Record(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.batches = []

    def on_train_batch_end(self, batch, logs=None):
        if keras.backend.backend() == "jax":
            self.model.jax_state_sync()
        seen = keras.ops.convert_to_numpy(self.model.layers[-1].seen)
        self.batches.append((seen - 1).astype(int).tolist())


def dataset():
    images = np.zeros((COUNT, 2, 2, 1), "uint8")
    images[:, 0, 0, 0] = np.arange(COUNT)
    return ImageData(images, np.arange(COUNT))


def fit(batches, built=True, callbacks=(), **kwargs):
    """Fits a model; returns the images of each batch that it trained on."""
    model = keras.Sequential([Recorder(batches.batch_size)])
    model.compile("sgd", "mse")
    if built:
        model.build((batches.batch_size, 2, 2, 1))
    record = Record()
    model.fit(
        batches,
        verbose=0,
        callbacks=[record, *callbacks],
        **{"shuffle": False, **kwargs},
    )
    return record.batches


def expected(epochs, batch_size=5, seed=3):
    """The full batches of epochs, from the definition."""
    steps = []
    for epoch in epochs:
        order = np.random.default_rng([seed, epoch]).permutation(COUNT)
        steps += [
            order[i : i + batch_size].tolist()
            for i in range(0, COUNT - batch_size + 1, batch_size)
        ]
    return steps


def batches(batch_size=5, **kwargs):
    return dataset().batches(
        batch_size, shuffle=True, seed=3, drop_remainder=True, **kwargs
    )


@pytest.mark.parametrize("built", [True, False])
@pytest.mark.parametrize("batch_size", [5, 12])
def test_resumed_fit_sees_the_same_batches(built, batch_size):
    whole = fit(batches(batch_size), built, epochs=3)
    assert whole == expected(range(3), batch_size)
    # Interrupted in epoch 1: its last steps, then epoch 2.
    steps = COUNT // batch_size
    rest = []
    if steps > 1:
        rest = fit(
            batches(batch_size, epoch=1, start_step=1),
            built,
            initial_epoch=1,
            epochs=2,
        )
        assert rest == whole[steps + 1 : 2 * steps]
    rest = fit(batches(batch_size, epoch=2), built, initial_epoch=2, epochs=3)
    assert rest == whole[2 * steps :]


def test_one_object_goes_through_fits():
    data = batches()
    assert fit(data, epochs=2) == expected([0, 1])
    assert data.epoch == 2
    assert fit(data, built=False) == expected([2])

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = batch == 1

    assert fit(data, callbacks=[Stop()]) == expected([3])[:2]
    # An epoch that was broken off isn't over.
    assert fit(data, epochs=2) == expected([3, 4])


def test_start_step_of_more_than_one_epoch_is_refused():
    data = batches(start_step=2)
    with pytest.raises(ValueError, match="epoch=1"):
        fit(data, epochs=2)
    assert fit(batches(start_step=2)) == expected([0])[2:]


def test_keras_shuffling_is_noticed():
    with pytest.warns(UserWarning, match="shuffle=False"):
        fit(batches(2), epochs=3, shuffle=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Keras shuffles")
        fit(batches(2), built=False, epochs=2)


def test_validation_and_predict_take_batches():
    data = dataset()
    model = keras.Sequential([Recorder(8)])
    model.compile("sgd", "mse")
    model.fit(
        data.batches(8, drop_remainder=True),
        validation_data=data.batches(8),
        epochs=2,
        shuffle=False,
        verbose=0,
    )
    assert model.predict(data.batches(8), verbose=0).shape == (COUNT, 1)


def test_unlabeled_batches_fit():
    data = ImageData(dataset().images)

    class Own(keras.Sequential):
        def compute_loss(self, x, y, y_pred, sample_weight, **kwargs):
            assert y is None
            return keras.ops.mean(y_pred)

    model = Own([Recorder(8)])
    model.compile("sgd")
    model.fit(data.batches(8), shuffle=False, verbose=0)
    assert len(data.batches(8)[0]) == 1


def test_each_epoch_has_every_image_once_in_a_new_order():
    data = dataset().batches(4, shuffle=True)
    orders = []
    for epoch in range(2):
        data.epoch = epoch
        got = list(data)
        assert [len(x) for x, _ in got] == [4, 4, 4, 4, 4, 2]
        for x, y in got:
            np.testing.assert_array_equal(x[:, 0, 0, 0], y)
        orders.append(np.concatenate([y for _, y in got]))
        assert sorted(orders[-1]) == list(range(COUNT))
    assert (orders[0] != orders[1]).any()
    other = dataset().batches(COUNT, shuffle=True, seed=1)[0][1]
    assert (other != orders[0]).any()
    in_order = dataset().batches(COUNT)[0][1]
    np.testing.assert_array_equal(in_order, np.arange(COUNT))


def test_batches_own_their_pixels():
    data = dataset()
    images, _ = data.batches(4)[0]
    images[:] = 9
    assert data.images[0, 0, 0, 0] == 0


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 23, "drop_remainder": True}, "22 images"),
        ({"batch_size": 11, "start_step": 2}, "start_step=2"),
        ({"batch_size": 11, "start_step": -1}, "start_step=-1"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        ImageBatches(*dataset(), **kwargs)


def test_workers_stay_one():
    data = batches()
    with pytest.raises(ValueError, match="workers=4"):
        data.workers = 4


def test_streaming_folder_resumes_too(tmp_path, monkeypatch):
    monkeypatch.setattr("kerassl.data.photo_checks._IN_MEMORY_BYTES", 0)
    for i in range(COUNT):
        pixels = np.full((4, 4, 3), i, "uint8")
        Image.fromarray(pixels).save(tmp_path / f"{i:02}.png")
    data = kerassl.data.load(tmp_path, image_size=2)
    pixels = data.images[:]
    data = ImageData(data.images, np.arange(COUNT))
    np.testing.assert_array_equal(pixels[:, 0, 0, 0], np.arange(COUNT))

    def run(epochs, **kwargs):
        streamed = data.batches(
            5, shuffle=True, seed=3, drop_remainder=True, **kwargs
        )
        model = keras.Sequential([Recorder(5)])
        model.compile("sgd", "mse")
        record = Record()
        model.fit(
            streamed,
            epochs=epochs,
            shuffle=False,
            verbose=0,
            callbacks=[record],
        )
        return record.batches

    assert run(2) == expected([0, 1])
    assert run(1, epoch=1, start_step=2) == expected([1])[2:]


def test_batches_of_an_array_are_uploaded():
    class Uploads:
        def begin(self, batch):
            return [10 + batch[0]]

        def end(self, batch):
            return batch[0] + 10

    images = np.arange(6, dtype="float32").reshape(6, 1, 1, 1)
    batches = kerassl.data.ImageBatches(images, batch_size=2)
    batches.upload(Uploads())
    found = [batches[i].ravel().tolist() for i in range(3)]
    assert found == [[20, 21], [22, 23], [24, 25]]
