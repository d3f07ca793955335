"""Labels reach the objective where a method asks for them."""

import keras
import numpy as np
import pytest
from keras import ops

import kerassl
from kerassl import data
from kerassl.data.photos import Photos
from kerassl.data.records import Files
from kerassl.training.inputs import Inputs

LABELS = np.arange(16) % 5
# Each image shows its label.
IMAGES = np.zeros((16, 8, 8, 1), "uint8") + (10 * LABELS[:, None, None, None])
IMAGES = IMAGES.astype("uint8")


class Pairs(keras.utils.PyDataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        rows = slice(4 * index, 4 * index + 4)
        return IMAGES[rows], LABELS[rows]


def as_tf_data():
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(4)


def as_tfds():
    tf = pytest.importorskip("tensorflow")
    rows = {"image": IMAGES, "label": LABELS}
    return tf.data.Dataset.from_tensor_slices(rows).batch(4)


def as_loader():
    torch = pytest.importorskip("torch")
    rows = torch.utils.data.TensorDataset(
        torch.from_numpy(IMAGES), torch.from_numpy(LABELS)
    )
    return torch.utils.data.DataLoader(rows, 4, shuffle=True)


def as_generator():
    return (Pairs()[i] for i in range(4))


def as_generator_of_dicts():
    for images, labels in as_generator():
        yield {"image": images, "label": labels}


STREAMS = (
    as_tf_data,
    as_tfds,
    as_loader,
    as_generator,
    as_generator_of_dicts,
    Pairs,
    lambda: data.ImageData(IMAGES, LABELS),
    lambda: data.ImageBatches(IMAGES, LABELS, batch_size=4, shuffle=True),
)


@pytest.mark.parametrize("form", STREAMS)
def test_labels_come_with_their_images(form):
    found = Inputs((None, None, 1), needs_labels=True).read(form(), 4, True)
    if isinstance(found, keras.utils.PyDataset):
        found = [found[i] for i in range(found.num_batches)]
    pairs = [tuple(map(ops.convert_to_numpy, batch)) for batch in found]
    seen = np.concatenate([labels for _, labels in pairs])
    assert sorted(seen) == sorted(LABELS)
    for images, labels in pairs:
        np.testing.assert_array_equal(images[:, 0, 0, 0], 10 * labels)


def test_labels_of_unknown_rank_are_looked_at_batch_by_batch():
    tf = pytest.importorskip("tensorflow")

    def pair(i):
        found = tf.numpy_function(Pairs().__getitem__, [i], ["uint8", "int64"])
        return tf.ensure_shape(found[0], (4, 8, 8, 1)), found[1]

    given = tf.data.Dataset.range(4).map(pair)
    inputs = Inputs((None, None, 1), needs_labels=True)
    seen = [labels for _, labels in inputs.read(given).as_numpy_iterator()]
    np.testing.assert_array_equal(np.concatenate(seen), LABELS)


@pytest.mark.parametrize("supervised", [False, True])
def test_photos_are_given_with_labels_as_arrays_are(supervised, tmp_path):
    for i, image in enumerate(IMAGES):
        keras.utils.save_img(tmp_path / f"{i:02}.png", image, scale=False)
    photos = Photos(Files([str(p) for p in sorted(tmp_path.iterdir())]), (8, 8))
    encoder = kerassl.encoders.build("resnet_nano", (8, 8, 3))
    model = kerassl.SimCLR(encoder, supervised=supervised)
    model.compile(keras.optimizers.SGD(0.0))
    model.fit(
        photos,
        LABELS,
        batch_size=8,
        validation_data=(photos, LABELS),
        verbose=0,
    )
    loss = model.evaluate(photos, LABELS, batch_size=8, verbose=0)
    assert np.isfinite(loss).all()


@pytest.mark.parametrize("form", STREAMS)
def test_a_negative_one_is_none_at_all(form, monkeypatch):
    monkeypatch.setitem(globals(), "LABELS", np.where(LABELS == 4, -1, LABELS))
    inputs = Inputs((None, None, 1), needs_labels=True)
    with pytest.raises(ValueError, match="numbers below 0"):
        with inputs.named_errors():
            found = inputs.read(form(), 4)
            if isinstance(found, keras.utils.PyDataset):
                found = [found[i] for i in range(found.num_batches)]
            list(found)


def test_supcon_learns_from_no_class_of_the_unlabeled():
    encoder = kerassl.encoders.build("resnet_nano", (8, 8, 1))
    model = kerassl.SimCLR(encoder, supervised=True)
    model.compile(keras.optimizers.SGD(0.0))
    with pytest.raises(ValueError, match="numbers below 0"):
        model.fit(IMAGES, np.full(16, -1), verbose=0)
    tensor = ops.convert_to_tensor(np.full(16, -1))
    with pytest.raises(ValueError, match="numbers below 0"):
        model.train_on_batch(IMAGES, tensor)


def test_supcon_takes_a_column_and_a_list_and_advises_on_one_hot():
    encoder = kerassl.encoders.build("resnet_nano", (8, 8, 1))
    model = kerassl.SimCLR(encoder, supervised=True)
    model.compile(keras.optimizers.SGD(0.0))
    losses = []
    for labels in (LABELS, LABELS[:, None], LABELS.tolist()):
        views = {f"view_{i}": IMAGES.astype("float32") for i in (1, 2)}
        losses.append(model.evaluate(views, labels, verbose=0))
    assert losses[1:] == [pytest.approx(losses[0])] * 2
    model.fit(IMAGES, LABELS[:, None], verbose=0)
    model.fit(data.ImageData(IMAGES, LABELS.tolist()), verbose=0)
    with pytest.raises(ValueError, match="use `labels.argmax"):
        model.fit(IMAGES, np.eye(5, dtype="int32")[LABELS], verbose=0)


@pytest.mark.parametrize("supervised", [False, True])
def test_weights_are_refused(supervised):
    encoder = kerassl.encoders.build("resnet_nano", (8, 8, 1))
    model = kerassl.SimCLR(encoder, supervised=supervised)
    model.compile(keras.optimizers.SGD(0.0))
    ones = np.ones(16)
    for call, arguments in (
        (model.fit, dict(sample_weight=ones)),
        (model.fit, dict(class_weight={0: 1.0})),
        (model.fit, dict(validation_data=(IMAGES, LABELS, ones))),
        (model.evaluate, dict(sample_weight=ones)),
        (model.train_on_batch, dict(sample_weight=ones)),
        (model.test_on_batch, dict(sample_weight=ones)),
    ):
        with pytest.raises(ValueError, match="SimCLR weights all images alike"):
            call(IMAGES, LABELS, **arguments)


class Reader(kerassl.methods.SelfSupervisedModel):
    """Its loss is 0 if each image has its label."""

    needs_labels = True
    num_views = 1
    default_views = staticmethod(
        lambda size: kerassl.augmentation.ViewAugmenter(
            [[kerassl.augmentation.RandomHorizontalFlip()]]
        )
    )

    def forward_views(self, views, training=False):
        return {"pixel": self.encode_views(views)["view_1"][:, 0]}

    def objective(self, outputs):
        assert set(outputs) == {"pixel", "labels"}
        expected = 10.0 * ops.cast(outputs["labels"], "float32")
        pixel = ops.cast(outputs["pixel"], "float32")
        return {"loss": ops.mean(ops.square(pixel - expected))}


@pytest.fixture(scope="module")
def reader():
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv2D(1, 1, kernel_initializer="ones")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    encoder = keras.Model(inputs, keras.layers.Rescaling(255)(x))
    model = Reader(encoder)
    model.compile(keras.optimizers.SGD(0.0))
    return model


def test_they_reach_the_objective_in_each_call(reader):
    views = {"view_1": IMAGES.astype("float32")}
    for x, y in (
        (IMAGES, LABELS),
        (views, LABELS),
        ({"image": IMAGES, "label": LABELS}, None),
        (as_generator_of_dicts(), None),
        (data.ImageData(IMAGES, LABELS), None),
    ):
        batch_size = None if hasattr(x, "__next__") else 4
        history = reader.fit(
            x,
            y,
            batch_size,
            validation_data=(IMAGES, LABELS),
            verbose=0,
        ).history
        assert max(*history["loss"], *history["val_loss"]) < 1e-6
    history = reader.fit(IMAGES, LABELS, validation_split=0.25, verbose=0)
    assert history.history["val_loss"][0] < 1e-6
    for found in (
        reader.evaluate(IMAGES, LABELS, verbose=0),
        reader.evaluate(data.ImageData(IMAGES, LABELS), verbose=0),
        reader.train_on_batch(IMAGES, LABELS),
        reader.test_on_batch({"image": IMAGES, "label": LABELS}),
    ):
        assert np.max(found) < 1e-6
    assert np.max(reader.test_on_batch(IMAGES, LABELS[::-1])) > 10
    # What has no loss needs none.
    assert reader.predict(IMAGES, verbose=0)["pixel"].shape == (16,)
    assert reader.embed(IMAGES).shape == (16, 1)


@pytest.mark.parametrize(
    "x,y",
    [
        (IMAGES, None),
        (IMAGES, LABELS[:, None, None]),
        (IMAGES, LABELS[:4]),
        (IMAGES, LABELS.astype("float32")),
        (IMAGES, np.array(list("abcdefghijklmnop"))),
        (IMAGES, np.full(16, -1)),
        (data.ImageData(IMAGES), None),
        (data.ImageData(IMAGES, np.full(16, -1)), None),
        (data.ImageBatches(IMAGES, batch_size=4), None),
    ],
)
def test_missing_and_wrong_ones_are_refused(reader, x, y):
    for call in (reader.fit, reader.evaluate):
        with pytest.raises(ValueError, match=r"labels: integers \(N,\)"):
            call(x, y, verbose=0)
