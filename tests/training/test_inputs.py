"""Reading a user's data, and refusing unsuitable data before it is used."""

import itertools
import pickle
import threading

import keras
import numpy as np
import pytest

from kerassl import data
from kerassl.callbacks import CollapseMonitor
from kerassl.training.forms import batch_sizes
from kerassl.training.in_memory import read_images, read_labeled
from kerassl.training.inputs import Inputs
from kerassl.training.pixels import PixelWatch
from tests.contracts.methods import moco_v2, simclr, simsiam, tiny_encoder

GOOD = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3)).astype("uint8")
FLOAT = GOOD.astype("float32")
SCALED = FLOAT / 255
NAMES = np.array([f"photo_{i}" for i in range(64)])


class Batches(keras.utils.PyDataset):
    """Images with labels, in batches."""

    def __init__(self, images, size=3, **kwargs):
        super().__init__(**kwargs)
        self.images = images
        self.size = size
        self.epochs = []

    def __len__(self):
        return -(-len(self.images) // self.size)

    def __getitem__(self, index):
        batch = self.images[index * self.size : (index + 1) * self.size]
        return batch, np.zeros(len(batch))

    def on_epoch_begin(self):
        self.epochs.append("begin")

    def on_epoch_end(self):
        self.epochs.append("end")


class Dicts(Batches):
    """A user's dict, with names and nested boxes."""

    def __getitem__(self, index):
        images, labels = super().__getitem__(index)
        # A list, as torch collates strings.
        names = NAMES[: len(images)].tolist()
        boxes = {"box": labels, "area": labels}
        return {"id": names, "image": images, "objects": boxes}, names


def as_tf_data(images, size=3):
    tf = pytest.importorskip("tensorflow")
    labels = np.zeros(len(images))
    return tf.data.Dataset.from_tensor_slices((images, labels)).batch(size)


def as_tfds(images, size=3):
    """Batches like those of TensorFlow Datasets."""
    tf = pytest.importorskip("tensorflow")
    features = {
        "id": np.char.encode(NAMES[: len(images)]),
        "image": images,
        "label": np.arange(len(images)) % 3,
        "objects": {"area": np.zeros(len(images))},
    }
    return tf.data.Dataset.from_tensor_slices(features).batch(size)


def as_loader(images, size=3):
    torch = pytest.importorskip("torch")
    return torch.utils.data.DataLoader(torch.from_numpy(images), size)


def as_loader_of_dicts(images, size=3):
    torch = pytest.importorskip("torch")
    rows = [{"image": x, "id": name} for x, name in zip(images, NAMES)]
    return torch.utils.data.DataLoader(rows, size)


def as_generator(images, size=3):
    batches = Batches(images, size)
    return (batches[i] for i in range(len(batches)))


def as_generator_of_dicts(images, size=3):
    batches = Dicts(images, size)
    return (batches[i][0] for i in range(len(batches)))


ARRAYS = {
    "array": np.asarray,
    "tensor": keras.ops.convert_to_tensor,
    "dict": lambda x: {"id": NAMES[: len(x)], "image": x},
    "ImageData": data.ImageData,
    "ImageBatches": lambda x: data.ImageBatches(x, batch_size=3),
}
STREAMS = {
    "PyDataset": Batches,
    "PyDataset of dicts": Dicts,
    "tf.data": as_tf_data,
    "TFDS": as_tfds,
    "DataLoader": as_loader,
    "DataLoader of dicts": as_loader_of_dicts,
    "generator": as_generator,
    "generator of dicts": as_generator_of_dicts,
}
FORMS = ARRAYS | STREAMS
any_form = pytest.mark.parametrize("form", FORMS.values(), ids=list(FORMS))
any_stream = pytest.mark.parametrize(
    "form", STREAMS.values(), ids=list(STREAMS)
)
SHAPE = (None, None, 3)


def drawn(data, **kwargs):
    """The batches that Keras would see, as NumPy arrays."""
    inputs = Inputs(**({"shape": SHAPE} | kwargs))
    found = inputs.read(data, 3)
    with inputs.named_errors():
        if hasattr(found, "shape"):
            batches = [found]
        elif isinstance(found, keras.utils.PyDataset):
            batches = [found[i][0] for i in range(found.num_batches)]
        else:
            batches = [batch[0] for batch in found]
        return [keras.ops.convert_to_numpy(batch) for batch in batches]


@any_form
def test_images_are_read_alike_from_everywhere(form):
    for images in (GOOD, FLOAT):
        found = drawn(form(images))
        np.testing.assert_array_equal(np.concatenate(found), images)
        assert found[0].dtype == images.dtype


@any_form
@pytest.mark.parametrize(
    "change,message",
    [
        (lambda x: x / 255, r"scaled to \[0, 1\].*255"),
        (lambda x: x / 127.5 - 1, r"scaled to \[-1, 1\].*255"),
        (lambda x: (x - 120) / 60, r"\[0, 255\]"),
        (lambda x: x * 4, r"\[0, 255\]"),
        (lambda x: np.where(x > 250, np.nan, x), "NaN"),
        (lambda x: np.where(x > 250, np.inf, x), "infinite"),
        (lambda x: x.astype("int32"), "int32"),
        (lambda x: np.ascontiguousarray(x.transpose(0, 3, 1, 2)), "channels"),
        (lambda x: x[..., :1], "of 3 channels"),
        (lambda x: x[:, 0], "shape"),
    ],
)
def test_wrong_images_are_refused_from_everywhere(form, change, message):
    with pytest.raises(ValueError, match=message):
        drawn(form(change(FLOAT)))


@any_stream
def test_a_later_batch_is_looked_at_too(form):
    black, white = np.zeros_like(FLOAT[:3]), np.ones_like(FLOAT[:3]) * 255
    dark = (GOOD[:3] > 128).astype("float32")
    for batches in (
        [FLOAT[:3], black],
        [black, FLOAT[:3]],
        [FLOAT[:3], dark],
        [white, black, dark],
    ):
        assert len(drawn(form(np.concatenate(batches)))) == len(batches)
    for batches in ([FLOAT[:3], SCALED[:3]], [black, SCALED[:3]]):
        with pytest.raises(ValueError, match=r"scaled to \[0, 1\]"):
            drawn(form(np.concatenate(batches)))
    with pytest.raises(ValueError, match="NaN"):
        drawn(form(np.concatenate([FLOAT[:3], FLOAT[:3] * np.nan])))


def test_arrays_are_looked_at_without_a_copy():
    assert PixelWatch()._sample(FLOAT) is FLOAT


def test_a_long_stream_is_sampled_in_turn(monkeypatch):
    monkeypatch.setattr("kerassl.training.pixels.SAMPLED_VALUES", 2 * 8 * 8 * 3)
    good = np.concatenate([FLOAT] * 8)
    bad = np.concatenate([FLOAT] * 3)
    bad[4::6] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        drawn(Batches(np.concatenate([good, bad]), 6))


def test_ready_made_views():
    def read(change, form=lambda x: x):
        views = {"view_1": FLOAT, "view_2": change(FLOAT), "id": NAMES}
        inputs = Inputs(SHAPE, ["view_1", "view_2"], ["mask"])
        return inputs.read(views | {"mask": GOOD[:, 0]})

    found = read(lambda x: x * 1.2 - 20)  # Like overshoots of a bicubic resize.
    assert set(found) == {"view_1", "view_2", "mask"}
    for change, message in [
        (lambda x: x / 255, r"`view_2` looks scaled to \[0, 1\]"),
        (lambda x: x / 127.5 - 1, r"scaled to \[-1, 1\]"),
        (lambda x: (x - 120) / 60, r"`view_2` must have values in"),
        (lambda x: x * 257, r"\[0, 255\]"),
        (lambda x: np.where(x > 250, np.nan, x), "NaN"),
        (lambda x: x.astype("int64"), "int64"),
        (lambda x: x[..., :1], "3 channels last"),
        (list, "list"),
    ]:
        with pytest.raises(ValueError, match=message):
            read(change)


def test_views_of_streams():
    views = {"view_1": FLOAT, "view_2": FLOAT, "id": NAMES[:6]}

    def batches(views):
        yield views, None

    tf = pytest.importorskip("tensorflow")
    for form in (batches, lambda x: tf.data.Dataset.from_tensors(x)):
        inputs = Inputs(SHAPE, ["view_1", "view_2"])
        ((found,),) = inputs.read(form(views))
        assert set(found) == {"view_1", "view_2"}
        inputs = Inputs(SHAPE, ["view_1", "view_2"])
        with pytest.raises(ValueError, match="`view_2` looks scaled"):
            with inputs.named_errors():
                list(inputs.read(form(views | {"view_2": SCALED})))


def test_other_sizes_are_refused_where_one_is_needed():
    for form in FORMS.values():
        assert len(np.concatenate(drawn(form(GOOD), shape=(8, 8, 3)))) == 6
        with pytest.raises(ValueError, match=r"\(9, 8, 3\). Resize them first"):
            drawn(form(GOOD), shape=(9, 8, 3))


def test_data_without_images_is_refused():
    tf = pytest.importorskip("tensorflow")
    for wrong, message in [
        ({"pixels": GOOD}, "must hold 'image'. Found: .'pixels'"),
        (tf.data.Dataset.from_tensors({"img": GOOD}), "Found: .'img'"),
        (tf.data.Dataset.from_tensor_slices(GOOD), "shape"),
        (tf.data.Dataset.from_tensors(tf.ragged.stack([GOOD[0]])), "one size"),
        (tf.data.Dataset.from_tensors({"image": NAMES}), "shape"),
        ([GOOD[0], GOOD[1]], "one array"),
    ]:
        with pytest.raises(ValueError, match=message):
            Inputs(SHAPE).read(wrong)


def test_a_py_dataset_stays_what_it_is():
    batches = Batches(GOOD, workers=2, max_queue_size=3)
    found = Inputs(SHAPE).read(batches)
    assert (found.workers, found.max_queue_size) == (2, 3)
    assert not found.use_multiprocessing and found.num_batches == 2
    found.on_epoch_begin()
    found.on_epoch_end()
    assert batches.epochs == ["begin", "end"]
    # It may be sent to another process, which doesn't need the model.
    inputs = Inputs(SHAPE, check_size=lambda size: None)
    sent = pickle.loads(pickle.dumps(inputs.read(batches)))
    np.testing.assert_array_equal(sent[0][0], GOOD[:3])


def test_a_loader_stays_what_it_is():
    torch = pytest.importorskip("torch")
    rows = torch.arange(6, dtype=torch.uint8)[:, None, None, None]
    rows = rows.expand(6, 8, 8, 3)

    def orders(read):
        torch.manual_seed(0)
        loader = read(torch.utils.data.DataLoader(rows, 2, shuffle=True))
        assert len(loader) == 3
        return [
            [int(x[0, 0, 0]) for batch in loader for x in batch]
            for _ in range(2)
        ]

    def read(loader):
        found = Inputs(SHAPE).read(loader)

        class Images:
            __len__ = found.__len__

            def __iter__(self):
                return (batch[0] for batch in found)

        return Images()

    first, second = orders(read)
    assert [first, second] == orders(lambda loader: loader)
    assert first != second


@any_form
def test_data_sets_are_read_into_memory(form):
    if "generator" in getattr(form, "__name__", ""):
        with pytest.raises(ValueError, match="generator"):
            read_images(form(GOOD))
        return
    np.testing.assert_array_equal(read_images(form(GOOD)), GOOD)


def test_labels_are_read_with_their_images():
    for form in (
        as_tfds,
        lambda x: {"image": x, "label": np.arange(6) % 3},
        lambda x: data.ImageData(x, np.arange(6) % 3),
        lambda x: (x, np.arange(6) % 3),
        lambda x: as_tfds(x).map(lambda row: (row["image"], row["label"])),
    ):
        images, labels = read_labeled(form(GOOD), "train")
        np.testing.assert_array_equal(images, GOOD)
        assert labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert read_labeled(as_loader(GOOD), "train")[1] is None
    with pytest.raises(ValueError, match="`train` is endless"):
        read_labeled(as_tfds(GOOD).repeat(), "train")


# === batch_sizes ===


class Endless(Batches):
    num_batches = None


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
    assert batch_sizes(Batches(GOOD, 6)) == [6]
    assert batch_sizes(Dicts(GOOD, 5)) == [5, 1]
    assert batch_sizes(Endless(GOOD)) == []


@pytest.mark.parametrize(
    "arguments,expected",
    [
        (dict(batch_size=4), [4, 2]),
        (dict(batch_size=5, drop_last=True), [5]),
        (dict(batch_size=3), [3]),
        (dict(batch_size=None), []),
        (dict(batch_sampler=[[0, 1], [2]]), []),
    ],
)
def test_batch_sizes_of_loaders(arguments, expected):
    torch = pytest.importorskip("torch")
    loader = torch.utils.data.DataLoader(torch.from_numpy(GOOD), **arguments)
    assert batch_sizes(loader) == expected


@pytest.mark.parametrize(
    "arguments,expected",
    [
        (dict(batch_size=32), [32, 1]),
        (dict(batch_size=11), [11, 11]),
        (dict(batch_size=32, drop_remainder=True), [32]),
        (dict(batch_size=32, start_step=1), [1]),
        (dict(batch_size=33, shuffle=True), [33]),
        (dict(batch_size=32, part=(1, 2), drop_remainder=True), [16]),
    ],
)
def test_batch_sizes_of_kerassls_batches(images, arguments, expected):
    batches = data.ImageBatches(images[:33], **arguments)
    assert sorted(set(batch_sizes(batches))) == sorted(set(expected))
    # The check consumed nothing.
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
    monkeypatch.setattr("kerassl.training.image_model.process", lambda: (0, 2))
    model = simsiam(tiny_encoder())
    model.compile("sgd")
    model.fit(images[:33], batch_size=32, verbose=0)
    assert model.batch_size == 64
    model = moco_v2(tiny_encoder(), queue_size=48)
    model.compile("sgd")
    with pytest.raises(ValueError, match="48 features.*batch of 64"):
        model.fit(images[:32], batch_size=32, verbose=0)
    # Batches that the processes share are counted once.
    batches = data.ImageBatches(images, batch_size=32, part=(0, 2))
    model = moco_v2(tiny_encoder(), queue_size=48)
    model.compile("sgd")
    model.fit(batches, shuffle=False, verbose=0)
    assert model.batch_size == 32


@pytest.mark.parametrize("form", [as_tfds, as_generator])
def test_a_batch_that_devices_cannot_share(images, monkeypatch, form):
    model = simclr(tiny_encoder())
    model.compile("sgd")
    # Like TensorFlow's threads, which see one device.
    main = threading.main_thread()
    monkeypatch.setattr(
        "kerassl.training.image_model.batch_parts",
        lambda: 2 if threading.current_thread() is main else 1,
    )
    with pytest.raises(ValueError, match="batch of 3 .* 2 devices"):
        model.fit(form(images[:11], 8), verbose=0)
    for call in (
        lambda x: model.evaluate(x, batch_size=8, verbose=0),
        lambda x: model.fit(
            images[:8], batch_size=8, validation_data=x, verbose=0
        ),
    ):
        with pytest.raises(ValueError, match="batch of 3 .* 2 devices"):
            call(images[:11])


def test_what_devices_cannot_share_is_found_before_training(
    images, monkeypatch
):
    monkeypatch.setattr("kerassl.training.image_model.batch_parts", lambda: 2)
    model = simclr(tiny_encoder())
    model.compile("sgd")
    for options in ({}, {"validation_batch_size": 3}):
        # 16 train.
        count = 20 if options else 19
        with pytest.raises(ValueError, match="batch of 3 .* 2 devices"):
            model.fit(
                images[:count],
                batch_size=8,
                validation_split=1 - 16.5 / count,
                verbose=0,
                **options,
            )
    assert not model.optimizer.built
    # Keras holds out nothing then.
    model.fit(
        images[:8],
        batch_size=8,
        validation_split=0.6,
        validation_data=images[:4],
        verbose=0,
    )


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


def test_a_model_works_after_a_first_step_that_failed(images, monkeypatch):
    model = simsiam(tiny_encoder())
    model.compile("adam")

    def interrupted(outputs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(model, "objective", interrupted)
        with pytest.raises(KeyboardInterrupt):
            model.fit(images, batch_size=16, verbose=0)
    model.fit(images, batch_size=16, verbose=0)
    assert int(model.optimizer.iterations) == -(-len(images) // 16)
    assert np.isfinite(model.evaluate(images, batch_size=16, verbose=0)[0])


@pytest.mark.parametrize("looks", ["validation", "monitor"])
def test_a_model_works_after_a_later_epoch_that_failed(images, looks):
    class Broken(Batches):
        def __getitem__(self, index):
            if len(weights) == 2:
                raise OSError("unreadable")
            return super().__getitem__(index)

    def on_epoch_begin(epoch, logs):
        # As a callback may.
        changed = [weight + epoch for weight in model.encoder.get_weights()]
        model.encoder.set_weights(changed)
        weights.append(model.get_weights())

    model = simsiam(tiny_encoder())
    model.compile("adam")
    batches = Broken(images[:32], 16)
    weights = []
    callbacks = [keras.callbacks.LambdaCallback(on_epoch_begin=on_epoch_begin)]
    if looks == "monitor":
        callbacks.append(CollapseMonitor(images[:32]))
    with pytest.raises(Exception, match="unreadable"):
        model.fit(
            batches,
            epochs=2,
            validation_data=images[:16] if looks == "validation" else None,
            callbacks=callbacks,
            verbose=0,
        )
    for found, expected in zip(model.get_weights(), weights[1], strict=True):
        np.testing.assert_array_equal(found, expected)
    # TensorFlow counts the step that failed.
    steps = int(model.optimizer.iterations)
    model.fit(images[:16], batch_size=16, verbose=0)
    assert int(model.optimizer.iterations) == steps + 1


def test_a_foreign_byte_order_is_read(images):
    model = simsiam(tiny_encoder())
    model.compile("sgd")
    foreign = images[:8].astype(">f4")
    usual = model.embed(foreign.astype("float32"))
    np.testing.assert_allclose(model.embed(foreign), usual, rtol=1e-5)
    for x in (foreign, data.ImageData(foreign)):
        model.fit(x, batch_size=8, verbose=0)
    model.train_on_batch(foreign)
    assert int(model.optimizer.iterations) == 3


# === All methods that read data ===


@pytest.fixture(scope="module")
def model():
    model = simclr(tiny_encoder())
    model.compile("sgd")
    return model


@pytest.mark.parametrize(
    "form",
    [
        as_tfds,
        as_loader_of_dicts,
        as_generator,
        lambda x, size: Dicts(x, size, workers=2),
        lambda x, size: data.ImageData(x, np.arange(len(x))),
    ],
)
def test_a_model_takes_it_everywhere(model, images, form):
    images = images[:16]
    features = model.embed(images)
    np.testing.assert_allclose(
        model.embed(form(images, 8), batch_size=8), features, 1e-5, 1e-6
    )
    history = model.fit(
        form(images, 8),
        batch_size=8,
        validation_data=form(images, 8),
        verbose=0,
    ).history
    assert np.isfinite([history["loss"], history["val_loss"]]).all()
    scores = model.evaluate(form(images, 8), verbose=0, return_dict=True)
    assert np.isfinite(scores["loss"])
    outputs = model.predict(form(images, 8), verbose=0)
    assert outputs["projection_1"].shape == (16, 8)


def test_validation_data_in_a_tuple_and_labels_of_any_kind(model, images):
    images, names = images[:16], NAMES[:16]
    history = model.fit(
        images, names, 8, validation_data=(images, names), verbose=0
    ).history
    assert np.isfinite(history["val_loss"]).all()
    model.evaluate(images, names, 8, verbose=0)
    model.train_on_batch(images[:8], names[:8])
    model.test_on_batch((images[:8], names[:8]))


def test_another_scale_is_refused_everywhere(model, images):
    scaled = images[:16] / 255
    steps = int(model.optimizer.iterations)
    views = {"view_1": scaled, "view_2": scaled}
    calls = [
        lambda x: model.fit(images[:16], validation_data=x, verbose=0),
        lambda x: model.fit(images[:16], validation_data=(x,), verbose=0),
        lambda x: model.fit(x, batch_size=8, verbose=0),
        lambda x: model.evaluate(x, verbose=0),
        lambda x: model.predict(x, verbose=0),
        model.test_on_batch,
        model.predict_on_batch,
        model.train_on_batch,
    ]
    for call, x in itertools.product(calls, [scaled, views]):
        with pytest.raises(ValueError, match=r"scaled to \[0, 1\]"):
            call(x)
    for x in (scaled, as_tfds(scaled, 8), as_loader(scaled, 8)):
        with pytest.raises(ValueError, match=r"scaled to \[0, 1\]"):
            model.embed(x)
    with pytest.raises(ValueError, match="Resize them first"):
        model.embed(images[:, :20])
    assert int(model.optimizer.iterations) == steps
    before = model.encoder.get_weights()
    for form in (as_tfds, as_loader, as_generator):
        with pytest.raises(ValueError, match=r"scaled to \[0, 1\]"):
            model.fit(form(scaled, 8), verbose=0)
    # Also if only a later batch shows it.
    mixed = np.concatenate([images[:8].astype("float32"), scaled[:8]])
    for call in (model.embed, model.predict, model.evaluate):
        with pytest.raises(ValueError, match=r"scaled to \[0, 1\]"):
            call(as_generator(mixed, 8))
    # On JAX the values are outside of the model at that time.
    for a, b in zip(before, model.encoder.get_weights()):
        np.testing.assert_array_equal(a, b)
    # Dark images after bright ones are accepted.
    bright = images[:8].astype("float32")
    for batch in (bright, np.minimum(bright, 1), bright * 0):
        model.train_on_batch(batch)


@pytest.mark.parametrize(
    "form,steps",
    [(as_tfds, 2), (as_generator, 2), (as_loader, 0), (Dicts, 0)],
)
def test_a_last_image_on_its_own(images, form, steps):
    model = simsiam(tiny_encoder())
    model.compile("sgd")
    with pytest.raises(ValueError, match="`batch_size`.*drop"):
        model.fit(form(images[:17], 8), verbose=0)
    # If the number of images is known, the error comes before the first step.
    taken = int(model.optimizer.iterations)
    if steps and keras.backend.backend() == "tensorflow":
        taken -= 1  # The count includes a step that got no data.
    assert taken == steps
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


def test_metrics_are_means_over_images(images):
    model = simclr(tiny_encoder())
    model.compile(keras.optimizers.SGD(0.0))
    made = model.make_views(images[:18])
    views = {k: keras.ops.convert_to_numpy(v) for k, v in made.items()}

    def parts(on_batch):
        logs = [
            on_batch({k: v[at] for k, v in views.items()}, return_dict=True)
            for at in (slice(16), slice(16, 18))
        ]
        return {k: (16 * a + 2 * logs[1][k]) / 18 for k, a in logs[0].items()}

    expected = parts(model.test_on_batch)
    found = model.evaluate(views, batch_size=16, verbose=0, return_dict=True)
    assert found == pytest.approx(expected, rel=1e-5)
    history = model.fit(
        views,
        batch_size=16,
        shuffle=False,
        validation_data=views,
        verbose=0,
    ).history
    for name, scalar in parts(model.train_on_batch).items():
        assert history[name] == [pytest.approx(scalar, rel=1e-5)]
        assert history[f"val_{name}"][0] > 0
