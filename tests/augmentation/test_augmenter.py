"""The layer that makes views: what goes in, what comes out, and its config."""

import keras
import numpy as np
import pytest
from keras import ops

import kerassl
from kerassl import augmentation
from kerassl.augmentation import (
    RandomHorizontalFlip,
    View,
    ViewAugmenter,
    color,
)
from kerassl.augmentation.pipeline import Pipeline
from tests.augmentation import reference
from tests.augmentation.fused import fused_view, smooth_images, uniforms
from tests.backends import more, once
from tests.contracts.methods import tiny_encoder


@pytest.mark.parametrize(
    "preset",
    [
        pytest.param("simclr", marks=once),
        pytest.param("moco_v2", marks=[once, more("the other two")]),
        pytest.param("byol", marks=once),
    ],
)
def test_views_differ_as_much_as_the_slow_ones(preset):
    """The statistic that a prototype with larger crops got wrong."""
    images = smooth_images(3000, size=32)
    augmenter = getattr(augmentation, preset)(32, seed=0)
    made = augmenter(images)
    views = {k: ops.convert_to_numpy(v) for k, v in made.items()}
    slow = {
        name: reference.make_views([5, i], images, view)
        for i, (name, view) in enumerate(augmenter.views.items())
    }

    def statistics(made):
        luma = [(v / 255.0) @ np.array(color.LUMA) for v in made.values()]
        mean = [x.mean((1, 2)) for x in luma]
        deviation = [x.std((1, 2)) for x in luma]
        chroma = [np.ptp(v / 255.0, axis=-1).mean() for v in made.values()]
        edges = [np.abs(np.diff(x, axis=2)).mean() for x in luma]
        return np.array(
            [
                np.abs(mean[0] - mean[1]).mean(),
                np.abs(deviation[0] - deviation[1]).mean(),
                *[m.mean() for m in mean],
                *[d.mean() for d in deviation],
                *chroma,
                *edges,
            ]
        )

    ours, theirs = statistics(views), statistics(slow)
    np.testing.assert_allclose(ours, theirs, rtol=0.05, atol=0.004)


def test_views_differ_within_a_batch_between_views_and_calls():
    images = np.repeat(smooth_images(1), 8, axis=0)
    augmenter = augmentation.simclr(32, seed=3)
    first, second = augmenter(images), augmenter(images)
    made = [
        ops.convert_to_numpy(view)[i]
        for views in (first, second)
        for view in views.values()
        for i in range(8)
    ]
    for i in range(len(made)):
        for j in range(i):
            assert np.abs(made[i] - made[j]).max() > 1


def test_a_seed_repeats_the_views():
    images = smooth_images(4)
    one = augmentation.simclr(32, seed=3)(images)["view_2"]
    two = augmentation.simclr(32, seed=3)(images)["view_2"]
    other = augmentation.simclr(32, seed=4)(images)["view_2"]
    one, two, other = map(ops.convert_to_numpy, (one, two, other))
    np.testing.assert_array_equal(one, two)
    assert np.abs(one - other).max() > 1


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", ["float32", "mixed_float16", "bfloat16"])
def test_dtype_shape_and_range(channels, dtype):
    augmenter = ViewAugmenter(
        {"a": View(24, solarize=0.5), "b": View(16)}, dtype=dtype
    )
    views = augmenter(smooth_images(3, channels=channels))
    assert tuple(views["a"].shape) == (3, 24, 24, channels)
    assert tuple(views["b"].shape) == (3, 16, 16, channels)
    for view in views.values():
        compute = augmenter.compute_dtype
        assert keras.backend.standardize_dtype(view.dtype) == compute
        values = ops.convert_to_numpy(ops.cast(view, "float32"))
        assert values.min() >= 0 and values.max() <= 255
        assert values.max() > 100
    assert augmenter.compute_output_shape((3, 32, 32, channels)) == {
        "a": (3, 24, 24, channels),
        "b": (3, 16, 16, channels),
    }


def test_config_round_trip():
    augmenter = augmentation.byol(20, seed=7)
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(augmenter)
    )
    assert again.views == augmenter.views
    images = smooth_images(2)
    np.testing.assert_array_equal(
        ops.convert_to_numpy(again(images)["view_1"]),
        ops.convert_to_numpy(augmenter(images)["view_1"]),
    )


def test_presets_are_the_papers():
    simclr = augmentation.simclr(224).views["view_1"]
    assert (simclr.brightness, simclr.hue, simclr.blur) == (0.8, 0.2, 0.5)
    cifar = augmentation.simclr(32).views["view_1"]
    assert (cifar.brightness, cifar.hue, cifar.blur) == (0.4, 0.1, 0.0)
    one, two = augmentation.byol(224).views.values()
    assert (one.blur, one.solarize) == (1.0, 0.0)
    assert (two.blur, two.solarize) == (0.1, 0.2)
    assert augmentation.moco_v1(224).views["view_1"].blur == 0
    assert augmentation.moco_v2(224).views["view_1"].hue == 0.1
    swav = augmentation.swav().views
    assert [view.size for view in swav.values()] == [224] * 2 + [96] * 6


def test_it_works_in_a_tf_data_map():
    tf = pytest.importorskip("tensorflow")
    images = smooth_images(40)
    augmenter = augmentation.simclr(24, seed=1)
    dataset = tf.data.Dataset.from_tensor_slices(images)
    batches = list(dataset.batch(10).map(augmenter).as_numpy_iterator())
    assert batches[0]["view_1"].shape == (10, 24, 24, 3)
    again = list(dataset.batch(10).map(augmenter).as_numpy_iterator())
    made = np.concatenate([b["view_1"] for b in batches + again])
    assert len(np.unique(made.reshape(80, -1), axis=0)) == 80
    single = next(iter(dataset.map(augmenter).as_numpy_iterator()))
    assert single["view_2"].shape == (24, 24, 3)
    # The same distribution as inside the model.
    assert 60 < made.mean() < 190 and made.max() <= 255 and made.min() >= 0


def test_the_tf_data_functions_are_the_same():
    pytest.importorskip("tensorflow")
    from kerassl.augmentation.namespace import TensorFlowNamespace

    images = smooth_images(16)
    view = View(24, interpolation="bicubic", solarize=0.3)
    operations = view.operations()
    numbers = uniforms(len(images), operations)
    made = Pipeline(operations)(TensorFlowNamespace(), images, numbers)
    np.testing.assert_allclose(
        np.asarray(made), fused_view(images, view), atol=0.05
    )


@pytest.mark.parametrize(
    "shape", [(2, 3, 32, 32), (2, 32, 32, 17), (32, 32), (2, 2, 32, 32, 3)]
)
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="channels last"):
        augmentation.simclr(32)(np.zeros(shape, "uint8"))


@pytest.mark.parametrize(
    "wrong",
    [
        dict(size=0),
        dict(crop_area=(0.0, 1.0)),
        dict(crop_area=(0.5, 1.5)),
        dict(crop_ratio=(2.0, 1.0)),
        dict(interpolation="nearest"),
        dict(flip=1.5),
        dict(hue=0.6),
        dict(brightness=-1.0),
        dict(blur_sigma=(0.0, 2.0)),
    ],
)
def test_parameters_out_of_range_are_refused(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=name):
        View(**({"size": 32} | wrong))


def test_no_view_is_refused():
    with pytest.raises(ValueError, match="at least one view"):
        ViewAugmenter([])


def test_a_view_without_a_size_has_the_encoders():
    views = {"same": [RandomHorizontalFlip()], "crop": View(28)}
    model = kerassl.SimCLR(
        tiny_encoder((28, 28, 3)), augmenter=ViewAugmenter(views)
    )
    outputs = model(smooth_images(4, size=28))
    assert {tuple(x.shape)[0] for x in outputs.values()} == {4}
