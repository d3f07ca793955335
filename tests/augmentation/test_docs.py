"""The example operation of `docs/views.md` does what the page says."""

import functools
import pathlib
import re

import keras
import numpy as np
import pytest
from keras import ops

import kerassl
from tests.augmentation.fused import smooth_images
from tests.backends import more
from tests.contracts.methods import tiny_encoder

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "views.md"


def source():
    marker = f"<!-- tests/augmentation/{pathlib.Path(__file__).name} runs"
    _, after = PAGE.read_text().split(marker)
    return re.search(r"```python\n(.*?)```", after, re.DOTALL)[1]


@functools.cache
def example():
    names = {"__name__": "example"}
    exec(source(), names)
    return names


def posterized(view):
    """Says of each image whether it has at most 16 levels."""
    view = np.asarray(view, "float32")
    return np.array([len(np.unique(image)) <= 16 for image in view])


def augmenter(**kwargs):
    Posterize, View = example()["Posterize"], example()["View"]
    # The crop alone before it: colors between levels show that it ran.
    view = View(28, jitter=0, grayscale=0, blur=0)
    return kerassl.augmentation.ViewAugmenter(
        [*view.operations(), Posterize(probability=0.5)], **kwargs
    )


def test_it_is_short():
    lines = [line for line in source().splitlines() if line.strip()]
    assert len(lines) <= 15


@more("the same in a training step", always_on="torch")
def test_on_batches_and_on_a_single_image():
    images = smooth_images(64, size=32)
    made = example()["augmenter"](images)
    assert {tuple(v.shape) for v in made.values()} == {(64, 32, 32, 3)}
    views = augmenter(seed=0)(images)
    for view in views.values():
        share = posterized(ops.convert_to_numpy(view)).mean()
        assert 0.25 < share < 0.75
    single = augmenter()(images[0])["view_1"]
    assert tuple(single.shape) == (28, 28, 3)


def test_a_single_image_is_one_image(monkeypatch):
    shapes, uniform = [], keras.random.uniform

    def draw(shape, *args, **kwargs):
        shapes.append(shape)
        return uniform(shape, *args, **kwargs)

    monkeypatch.setattr(keras.random, "uniform", draw)
    layer = augmenter(seed=0)
    layer(smooth_images(1, size=32)[0])
    assert {int(shape[0]) for shape in shapes} == {1}


def test_in_tf_data():
    tf = pytest.importorskip("tensorflow")
    images = smooth_images(64, size=32)
    data = tf.data.Dataset.from_tensor_slices(images)
    batch = next(iter(data.batch(64).map(augmenter(seed=0))))
    assert 0.25 < posterized(batch["view_1"]).mean() < 0.75
    assert next(iter(data.map(augmenter())))["view_2"].shape == (28, 28, 3)


def test_in_a_training_step_and_a_saved_model(tmp_path):
    images = smooth_images(16, size=32)
    model = kerassl.SimCLR(
        tiny_encoder((28, 28, 3)), augmenter=augmenter(seed=0)
    )
    model.compile(optimizer=keras.optimizers.SGD(0.1))
    history = model.fit(images, batch_size=8, epochs=1, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.augmenter.views == model.augmenter.views
    assert repr(again.augmenter.views["view_1"][-1]) == (
        "Posterize(probability=0.5)"
    )
    again.fit(images, batch_size=8, epochs=1, verbose=0)
