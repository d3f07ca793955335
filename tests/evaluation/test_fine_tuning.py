import dataclasses

import keras
import numpy as np
import pytest

from kerassl import data, encoders
from kerassl.data.photos import Photos
from kerassl.data.records import Files
from kerassl.evaluation import fine_tune
from kerassl.evaluation.fine_tuning import SGD_RATES, Classifier, _optimizer
from tests.backends import once
from tests.contracts.methods import tiny_encoder


@pytest.fixture(scope="module")
def splits():
    return [
        data.load("fashion_mnist_small", split, limit=limit)
        for split, limit in (("train", 200), ("test", 200))
    ]


class Batches(keras.utils.PyDataset):
    def __init__(self, part):
        super().__init__()
        self.part = part

    def __len__(self):
        return 4

    def __getitem__(self, index):
        rows = slice(50 * index, 50 * index + 50)
        return self.part.images[rows], self.part.labels[rows]


def test_it_learns_and_leaves_the_encoder(splits):
    encoder = tiny_encoder()
    before = encoder.get_weights()
    arguments = dict(epochs=20, learning_rate=0.2, seed=3)
    scores = fine_tune(encoder, *splits, **arguments)
    assert 0.4 < scores.pop("accuracy") < 1
    assert scores == {
        "learning_rate": 0.2,
        "epochs": 20,
        "train_size": 200,
        "test_size": 200,
    }
    assert encoder.trainable
    for a, b in zip(before, encoder.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_it_chooses_on_the_training_labels(splits, monkeypatch):
    train, test = (part.take(60) for part in splits)
    sizes = []
    fit = Classifier.fit

    def counted(self, batches, **kwargs):
        sizes.append(len(batches.images))
        return fit(self, batches, **kwargs)

    monkeypatch.setattr(Classifier, "fit", counted)
    scores = fine_tune(tiny_encoder(), train, test, epochs=1, batch_size=16)
    assert scores["learning_rate"] in SGD_RATES
    # Each rate on four fifths, and the best one on all.
    *tried, last = sizes
    assert len(set(tried)) == 1 and len(tried) == len(SGD_RATES)
    assert 44 <= tried[0] <= 52 and last == 60


def test_a_frozen_encoder_stays(splits):
    encoder = tiny_encoder()
    model = Classifier(encoder, 10, frozen=True)
    model.compile("sgd", "sparse_categorical_crossentropy")
    before = encoder.get_weights()
    images, labels = splits[0].take(32)
    model.fit(images, labels, verbose=0)
    for a, b in zip(before, encoder.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert {v.path.split("/")[-2] for v in model.trainable_variables} == {
        "linear"
    }


def test_images_are_cropped_in_training_alone(splits):
    model = Classifier(tiny_encoder(), 10)
    images = splits[0].images[:8].astype("float32")
    inference, again = (
        keras.ops.convert_to_numpy(model(images)) for _ in range(2)
    )
    np.testing.assert_array_equal(inference, again)
    first, second = (
        keras.ops.convert_to_numpy(model(images, training=True))
        for _ in range(2)
    )
    assert np.abs(first - second).max() > 1e-3


@once
def test_a_transformers_blocks_learn_slower_the_deeper():
    encoder = encoders.build("vit_nano", (8, 8, 1))
    model = Classifier(encoder, 3)
    optimizer = _optimizer(model, 0.1, 64, 10, 0.5)
    optimizer.build(model.trainable_variables)
    # Of the embedding and two blocks, and the layer that comes new.
    one_of = {
        name: next(v for v in model.trainable_variables if name in v.path)
        for name in ("embedding/", "block_1/", "block_6/", "linear/")
    }
    for _ in range(3):  # Past the warmup's first step, whose rate is 0.
        old = {n: keras.ops.convert_to_numpy(v) for n, v in one_of.items()}
        optimizer.apply(
            [keras.ops.ones(v.shape) for v in model.trainable_variables],
            model.trainable_variables,
        )
        moves = {
            n: np.abs(old[n] - keras.ops.convert_to_numpy(v)).mean()
            for n, v in one_of.items()
        }
    # Adam's steps are as long as the rate.
    full = moves["linear/"]
    assert moves["block_6/"] == pytest.approx(0.5 * full, rel=0.1)
    assert moves["block_1/"] == pytest.approx(0.5**6 * full, rel=0.1)
    assert moves["embedding/"] == pytest.approx(0.5**7 * full, rel=0.1)


@pytest.mark.parametrize(
    "change,message",
    [
        (lambda x, y: (x, None), "train set has no labels"),
        (lambda x, y: (x, np.zeros_like(y)), "at least two classes"),
        (lambda x, y: (x, y[:-1]), "one entry for each image"),
        (lambda x, y: (x / 255, y), r"looks scaled to \[0, 1\]"),
    ],
)
def test_bad_data_are_refused(splits, change, message):
    train, test = splits
    with pytest.raises(ValueError, match=message):
        fine_tune(tiny_encoder(), change(*train), test)


@pytest.mark.parametrize(
    "setting",
    [
        dict(epochs=0),
        dict(batch_size=1),
        dict(learning_rate=0.0),
        dict(learning_rate=(0.1, -0.1)),
        dict(learning_rate=float("nan")),
        dict(learning_rate=()),
        dict(layer_decay=1.5),
    ],
)
def test_settings_out_of_range_are_refused(splits, setting):
    (name,) = setting
    with pytest.raises(ValueError, match=f"`{name}` is out of range"):
        fine_tune(tiny_encoder(), *splits, **setting)


def test_it_reads_batches(splits):
    batches = [Batches(part) for part in splits]
    settings = dict(epochs=1, batch_size=16, learning_rate=0.1)
    encoder = tiny_encoder()
    found = fine_tune(encoder, *batches, **settings)
    pairs = [(part.images, part.labels) for part in splits]
    assert found == fine_tune(encoder, *pairs, **settings)


def test_only_square_images_can_be_cropped(splits):
    encoder = encoders.build("resnet_nano", (24, 40, 1))
    with pytest.raises(ValueError, match=r"\(24, 40, 1\)"):
        fine_tune(encoder, *splits)


@pytest.mark.parametrize("part", [0, 1])
@pytest.mark.parametrize("form", [(20, 28, 1), (28, 28, 3)])
def test_images_of_another_form_are_refused_at_once(
    splits, part, form, monkeypatch
):
    monkeypatch.setattr(Classifier, "__init__", None)
    given = [(x.images, x.labels) for x in splits]
    given[part] = np.zeros((200, *form), "uint8"), given[part][1]
    with pytest.raises(ValueError, match="The encoder takes images of.*Found"):
        fine_tune(tiny_encoder(), *given)


def test_photos_of_another_size_are_refused_unread(splits, tmp_path):
    files = Files([tmp_path / f"{i}.png" for i in range(40)])
    photos = Photos(files, (32, 28)), np.arange(40) % 2
    encoder = encoders.build("resnet_nano", (28, 28, 3))
    with pytest.raises(ValueError, match=r"\(28, 28, 3\).*\(32, 28, 3\)"):
        fine_tune(encoder, photos, photos)


def test_a_diverged_model_is_no_guess(splits):
    train, test = (part.take(40) for part in splits)
    # The first of NaNs would be the first class, which a part of them have.
    test = dataclasses.replace(test, labels=np.zeros_like(test.labels))
    train.labels[0] = 0
    with pytest.warns(UserWarning, match="diverged at the learning rate"):
        scores = fine_tune(
            tiny_encoder(), train, test, epochs=3, learning_rate=1e38
        )
    assert scores["accuracy"] == 0.0
