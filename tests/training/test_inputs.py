"""What `fit` refuses before it starts."""

import keras
import numpy as np
import pytest

from kerassl import data
from kerassl.training import batch_sizes, check_first_batch
from tests.contracts.methods import moco_v2, simsiam, tiny_encoder

GOOD = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3)).astype("uint8")
SCALED = GOOD.astype("float32") / 255


class Batches(keras.utils.PyDataset):
    def __init__(self, images):
        super().__init__()
        self.images = images

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return self.images, np.zeros(len(self.images))


def as_tf_data(images):
    tf = pytest.importorskip("tensorflow")
    labels = np.zeros(len(images))
    return tf.data.Dataset.from_tensor_slices((images, labels)).batch(3)


def as_loader(images):
    torch = pytest.importorskip("torch")
    return torch.utils.data.DataLoader(torch.from_numpy(images), batch_size=3)


FORMS = [np.asarray, Batches, as_tf_data, as_loader, lambda x: {"image": x}]


@pytest.mark.parametrize("form", FORMS)
def test_good_images_pass(form):
    check_first_batch(form(GOOD), 3)
    check_first_batch(form(GOOD.astype("float32")), 3)


@pytest.mark.parametrize("form", FORMS)
def test_scaled_images_are_refused(form):
    with pytest.raises(ValueError, match="255"):
        check_first_batch(form(SCALED), 3)


@pytest.mark.parametrize("form", FORMS)
def test_channels_first_is_refused(form):
    images = GOOD.transpose(0, 3, 1, 2).astype("float32")
    with pytest.raises(ValueError, match="channels"):
        check_first_batch(form(images), 3)


def test_other_channels_are_refused():
    with pytest.raises(ValueError, match="1 channels"):
        check_first_batch(GOOD, 1)


def test_views_and_generators_pass_untouched():
    check_first_batch({"view_1": SCALED, "view_2": SCALED}, 3)
    generator = (x for x in [SCALED])
    check_first_batch(generator, 3)
    assert next(generator) is SCALED


# === batch_sizes ===


class Dicts(keras.utils.PyDataset):
    """Batches of 4, 4 and 1, as dicts; or endless."""

    def __init__(self, endless=False):
        super().__init__()
        self.endless = endless

    @property
    def num_batches(self):
        return None if self.endless else 3

    def __getitem__(self, index):
        return {"image": GOOD[: 1 if index == 2 else 4]}, np.zeros(4)


@pytest.mark.parametrize(
    "count,batch_size,expected",
    [
        (64, 32, [32]),
        (64, None, [32]),
        (65, None, [32, 1]),
        (33, 32, [32, 1]),
        (40, 16, [16, 8]),
        (5, 32, [5]),
        (1, 32, [1]),
        (3, 1, [1]),
    ],
)
def test_batch_sizes_of_arrays(count, batch_size, expected):
    x = np.zeros((count, 2, 2, 1), "uint8")
    views = {"view_1": x, "view_2": x}
    tensor = keras.ops.convert_to_tensor(x)
    for form in (x, tensor, views, {"image": x}):
        assert batch_sizes(form, batch_size) == expected


def test_batch_sizes_of_py_datasets():
    assert batch_sizes(Batches(GOOD)) == [6]
    assert batch_sizes(Dicts()) == [4, 1]
    assert batch_sizes(Dicts(endless=True)) == []


@pytest.mark.parametrize(
    "arguments,expected",
    [
        (dict(batch_size=32), [32, 1]),
        (dict(batch_size=11), [11, 11]),
        (dict(batch_size=32, drop_remainder=True), [32]),
        (dict(batch_size=32, start_step=1), [1]),
        (dict(batch_size=33, shuffle=True), [33]),
    ],
)
def test_batch_sizes_of_kerassls_batches(images, arguments, expected):
    batches = data.ImageBatches(images[:33], **arguments)
    assert sorted(set(batch_sizes(batches))) == sorted(set(expected))
    # Looking took nothing.
    assert len(batches) == batches.steps_per_epoch - batches.start_step
    assert batches.epoch == 0


def test_batch_sizes_of_tf_data():
    tf = pytest.importorskip("tensorflow")
    for x in (GOOD, (GOOD, np.zeros(6)), {"image": GOOD}):
        dataset = tf.data.Dataset.from_tensor_slices(x)
        assert batch_sizes(dataset.batch(4, drop_remainder=True)) == [4]
        assert batch_sizes(dataset.batch(4)) == []


def test_batch_sizes_that_nobody_knows():
    generator = (x for x in [GOOD])
    assert batch_sizes(generator) == []
    assert next(generator) is GOOD
    assert batch_sizes(None) == []


# === fit ===


@pytest.mark.parametrize(
    "fit",
    [
        lambda model, x: model.fit(x[:1], verbose=0),
        lambda model, x: model.fit(x[:33], batch_size=32, verbose=0),
        lambda model, x: model.fit(x[:33], None, 32, verbose=0),
        lambda model, x: model.fit(x[:33], verbose=0),
        lambda model, x: model.fit(x=x[:4], batch_size=1, verbose=0),
        lambda model, x: model.fit({"image": x[:33]}, verbose=0),
        lambda model, x: model.fit(
            data.ImageBatches(x[:33], batch_size=32), verbose=0
        ),
    ],
)
def test_a_batch_of_1_is_refused_before_training(images, fit):
    model = simsiam(tiny_encoder())
    model.compile("sgd")
    before = model.get_weights()
    with pytest.raises(ValueError, match="`batch_size`.*drop") as error:
        fit(model, images)
    assert "batch of 1" in str(error.value)
    for a, b in zip(before, model.get_weights()):
        np.testing.assert_array_equal(a, b)
    assert int(model.optimizer.iterations) == 0


def test_a_last_batch_of_2_trains(images):
    model = simsiam(tiny_encoder())
    model.compile("sgd")
    batches = data.ImageBatches(images[:34], batch_size=32)
    for x, batch_size in ((images[:34], 32), (batches, None)):
        model.fit(x, batch_size=batch_size, verbose=0, shuffle=False)
    assert int(model.optimizer.iterations) == 4


def test_a_validation_split_counts(images):
    model = simsiam(tiny_encoder())
    model.compile("sgd")
    with pytest.raises(ValueError, match="batch of 1"):
        # 66 images, of which 33 train.
        twice = np.concatenate([images, images[:2]])
        model.fit(twice, batch_size=32, validation_split=0.5, verbose=0)
    # 33 images, of which 24 train.
    model.fit(images[:33], batch_size=8, validation_split=0.25, verbose=0)
    assert int(model.optimizer.iterations) == 3


def test_a_batch_is_that_of_all_processes(images, monkeypatch):
    monkeypatch.setattr("kerassl.methods.base.process", lambda: (0, 2))
    model = simsiam(tiny_encoder())
    model.compile("sgd")
    model.fit(images[:33], batch_size=32, verbose=0)
    assert model.batch_size == 64
    model = moco_v2(tiny_encoder(), queue_size=48)
    model.compile("sgd")
    with pytest.raises(ValueError, match="48 keys.*batch of 64"):
        model.fit(images[:32], batch_size=32, verbose=0)


def test_looking_after_an_interrupted_fit_warns_of_nothing(images, recwarn):
    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

    model = simsiam(tiny_encoder())
    model.compile("sgd")
    batches = data.ImageBatches(images, batch_size=16)
    with pytest.raises(KeyboardInterrupt):
        model.fit(batches, callbacks=[Interrupt()], verbose=0, shuffle=False)
    batch_sizes(batches)
    assert not [w for w in recwarn if "shuffles the order" in str(w.message)]
