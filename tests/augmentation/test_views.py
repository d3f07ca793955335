"""The fused views against the slow ones, and the layer's behavior."""

import dataclasses
import functools

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from keras import ops
from PIL import Image
from scipy import stats
from sklearn.datasets import load_sample_images

from kerassl import augmentation
from kerassl.augmentation import View, ViewAugmenter, color, geometry
from kerassl.augmentation.augmenter import (
    UNIFORMS,
    make_view,
)
from tests.augmentation import reference
from tests.backends import compiled, once

# A view in which nothing happens but the resize to `size`.
STILL = View(
    32,
    crop_area=(1.0, 1.0),
    crop_ratio=(1.0, 1.0),
    flip=0.0,
    jitter=0.0,
    grayscale=0.0,
    blur=0.0,
)


def smooth_images(count=64, size=32, channels=3, seed=0):
    """Colored blobs: smooth, as photographs are, and full of range."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 6, 6, channels)).astype("uint8")
    return np.stack(
        [
            reference.resized_crop(image, (0, 0, 6, 6), size, "bicubic")
            for image in coarse
        ]
    )


def photos(count=128, size=32):
    """Patches of scikit-learn's two photographs, at a third of their size."""
    rng = np.random.default_rng(0)
    patches = []
    for i in range(count):
        photo = load_photos()[i % 2]
        top, left = rng.integers(0, np.array(photo.shape[:2]) - size)
        patches.append(photo[top : top + size, left : left + size])
    return np.stack(patches)


@functools.cache
def load_photos():
    return [
        np.asarray(Image.fromarray(photo).reduce(3))
        for photo in load_sample_images().images
    ]


def shift_hue(images, turns):
    """`color.shift_hue` of images `(B, H, W, 3)` in [0, 255]."""
    pixels = np.moveaxis(images / 255.0, -1, 1).astype("float32")
    shape = pixels.shape
    made = color.shift_hue(
        ops,
        ops.convert_to_tensor(pixels.reshape(*shape[:2], -1)),
        ops.convert_to_tensor(turns.astype("float32")),
    )
    made = ops.convert_to_numpy(made).reshape(shape)
    return np.moveaxis(made, 1, -1) * 255


def uniforms(count, **given):
    """Uniform numbers in the augmenter's layout, some of them given."""
    rng = np.random.default_rng(1)
    columns = {n: rng.random((count, w)) for n, w in UNIFORMS.items()}
    for name, value in given.items():
        columns[name][:] = value
    return np.concatenate(list(columns.values()), axis=1).astype("float32")


def fused(images, view, numbers):
    made = compiled(lambda *arrays: make_view(ops, *arrays, view))(
        ops.convert_to_tensor(images), ops.convert_to_tensor(numbers)
    )
    return ops.convert_to_numpy(made)


def test_nothing_happens_in_a_still_view():
    images = smooth_images()
    views = fused(images, STILL, uniforms(len(images)))
    np.testing.assert_allclose(views, images, atol=1e-3)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [8, 32, 50])
def test_crop_and_resize_are_pils(interpolation, size):
    # Away from black and white: PIL clips between its two passes too.
    images = smooth_images(12, size=40) // 2 + 64
    rng = np.random.default_rng(3)
    boxes = [
        reference.draw_box(rng, 40, 40, (0.05, 1.0), (3 / 4, 4 / 3))
        for _ in images
    ]
    top, left, height, width = ops.convert_to_tensor(
        np.array(boxes, "float32").T
    )
    rows = geometry.resize_matrix(
        ops, top, height, None, size, 40, interpolation
    )
    columns = geometry.resize_matrix(
        ops, left, width, None, size, 40, interpolation
    )
    floats = ops.cast(images, "float32")
    made = geometry.resample(ops, floats, rows, columns)
    made = ops.reshape(ops.clip(made, 0, 255), (-1, 3, size, size))
    made = ops.convert_to_numpy(ops.transpose(made, (0, 2, 3, 1)))
    slow = np.stack(
        [
            reference.resized_crop(image, box, size, interpolation)
            for image, box in zip(images, boxes)
        ]
    )
    # PIL rounds after each of the two passes.
    np.testing.assert_allclose(made, slow, atol=1.1)


def test_flip_mirrors():
    images = smooth_images()
    numbers = uniforms(len(images), flip=0.25)
    view = dataclasses.replace(STILL, flip=0.5)
    np.testing.assert_allclose(
        fused(images, view, numbers), images[:, :, ::-1], atol=1e-3
    )


@pytest.mark.parametrize("height,width", [(32, 32), (30, 64), (64, 30)])
def test_boxes_are_distributed_as_torchvisions(height, width):
    area, ratio, count = (0.08, 1.0), (3 / 4, 4 / 3), 20000
    rng = np.random.default_rng(0)
    columns = {
        name: rng.random((count, UNIFORMS[name])).astype("float32")
        for name in ("area", "ratio", "top", "left")
    }
    made = geometry.draw_box(
        ops,
        {k: ops.convert_to_tensor(v) for k, v in columns.items()},
        height,
        width,
        area,
        ratio,
    )
    top, left, box_height, box_width = map(ops.convert_to_numpy, made)
    slow = np.array(
        [
            reference.draw_box(rng, height, width, area, ratio)
            for _ in range(count)
        ]
    )
    assert (top >= 0).all() and (top + box_height <= height).all()
    assert (left >= 0).all() and (left + box_width <= width).all()
    for ours, theirs in zip((top, left, box_height, box_width), slow.T):
        np.testing.assert_array_equal(ours, np.round(ours))
        assert stats.ks_2samp(ours, theirs).statistic < 0.02
    # Correlations too: a box near the whole image has no room to move.
    np.testing.assert_allclose(
        np.corrcoef([top, left, box_height, box_width]),
        np.corrcoef(slow.T),
        atol=0.03,
    )
    share = np.mean(box_height * box_width) / (height * width)
    theirs = np.mean(slow[:, 2] * slow[:, 3]) / (height * width)
    assert share == pytest.approx(theirs, abs=0.006)


def place_first(operation):
    """Uniform numbers whose order puts an operation first."""
    return [0.0 if i == operation else 0.9 for i in range(4)]


@pytest.mark.parametrize("u", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize(
    "position,name", enumerate(["brightness", "contrast", "saturation"])
)
def test_each_jitter_operation_is_pils(position, name, u):
    images = smooth_images()
    neutral = dict(brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0)
    view = dataclasses.replace(STILL, jitter=1.0, **(neutral | {name: 0.8}))
    numbers = uniforms(len(images), order=place_first(position), **{name: u})
    slow = getattr(reference, f"adjust_{name}")
    factor = 0.2 + 1.6 * u
    expected = np.stack([slow(image, factor) for image in images])
    # PIL cuts fractions, and rounds the contrast's mean.
    np.testing.assert_allclose(fused(images, view, numbers), expected, atol=2.5)


@pytest.mark.parametrize("hue", [0.0, 0.1, 0.4])
def test_jitter_in_every_order_is_pils(hue):
    names = ["brightness", "contrast", "saturation"]
    images = photos()
    view = dataclasses.replace(STILL, jitter=1.0, hue=hue)
    numbers = uniforms(len(images))
    edges = np.cumsum([0, *UNIFORMS.values()])
    column = dict(zip(UNIFORMS, edges))
    expected = []
    for image, row in zip(images, numbers):
        start = column["order"]
        order = np.argsort(row[start : start + 4])
        factors = {n: 0.2 + 1.6 * row[column[n]] for n in names}
        if hue:
            factors["hue"] = hue * (2 * row[column["hue"]] - 1)
        expected.append(
            reference.color_jitter(
                image, factors, [[*names, "hue"][i] for i in order]
            )
        )
    difference = np.abs(fused(images, view, numbers) - np.stack(expected))
    # PIL cuts up to a level off in each of three operations, and what follows
    # multiplies it; another order would be tens of levels away.
    assert np.mean(difference) < 1.6
    # In PIL the hue of a nearly gray pixel is coarse.
    assert np.quantile(difference, 0.999) < (16 if hue else 6)


@pytest.mark.parametrize("shift", [-0.4, -0.1, -0.05, 0.05, 0.1, 0.4])
def test_hue_is_pils_on_photos(shift):
    """On photos, since hue moves few of their pixels far."""
    images = photos()
    made = np.asarray(shift_hue(images, np.full((len(images), 1), shift)))
    expected = np.stack([reference.adjust_hue(i, shift) for i in images])
    moved = expected.astype("float32") - images
    gap = made - expected
    # PIL rounds hues and saturations to 8 bits; it moves pixels by 5 to 41
    # levels here.
    assert np.mean(np.abs(gap)) < 0.7
    assert np.mean(np.abs(made - images)) == pytest.approx(
        np.mean(np.abs(moved)), rel=0.1
    )
    ours = made - images
    cosine = np.sum(moved * ours) / np.sqrt(np.sum(moved**2) * np.sum(ours**2))
    assert cosine > 0.99


@given(
    pixels=arrays(
        np.float32, (2, 5, 5, 3), elements=st.floats(0, 255, width=32)
    ),
    turns=st.floats(-0.5, 0.5),
)
@settings(deadline=None, max_examples=50)
def test_hue_keeps_value_and_saturation(pixels, turns):
    made = shift_hue(pixels, np.full((2, 1), turns))
    for extreme in (np.min, np.max):
        np.testing.assert_allclose(
            extreme(made, axis=-1), extreme(pixels, axis=-1), atol=1e-3
        )
    gray = np.repeat(pixels[..., :1], 3, axis=-1)
    np.testing.assert_allclose(
        shift_hue(gray, np.full((2, 1), turns)), gray, atol=1e-3
    )


@once
def test_a_view_compiles_without_a_break():
    import torch

    view = augmentation.byol(48).views["view_2"]
    images = ops.convert_to_tensor(smooth_images(4))
    numbers = ops.convert_to_tensor(uniforms(4))
    compiled_view = torch.compile(
        lambda *arrays: make_view(ops, *arrays, view),
        fullgraph=True,
        backend="eager",
    )
    np.testing.assert_array_equal(
        compiled_view(images, numbers), make_view(ops, images, numbers, view)
    )


def test_grayscale_is_pils():
    images = smooth_images()
    view = dataclasses.replace(STILL, grayscale=0.2)
    made = fused(images, view, uniforms(len(images), grayscale=0.1))
    expected = np.stack([reference.grayscale(image) for image in images])
    np.testing.assert_allclose(made, expected, atol=1.0)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_blur_is_near_pils(sigma):
    images = smooth_images(16, size=64)
    view = dataclasses.replace(STILL, size=64, blur=1.0, blur_sigma=(0.1, 2.0))
    numbers = uniforms(len(images), blur=0.0, sigma=(sigma - 0.1) / 1.9)
    made = fused(images, view, numbers)
    expected = np.stack([reference.gaussian_blur(i, sigma) for i in images])
    inner = (slice(None), slice(6, -6), slice(6, -6))
    assert np.abs(made[inner] - expected[inner]).max() < 4
    assert np.abs(made - expected).mean() < 1.5


def test_solarize_inverts_bright_pixels():
    images = smooth_images()
    view = dataclasses.replace(STILL, solarize=0.2, solarize_threshold=0.5)
    made = fused(images, view, uniforms(len(images), solarize=0.1))
    expected = np.where(images >= 127.5, 255.0 - images, images)
    np.testing.assert_allclose(made, expected, atol=1e-3)


def test_each_probability_is_respected():
    images = smooth_images(4000, size=8)
    still = dataclasses.replace(STILL, size=8)
    for name, probability in dict(
        flip=0.5, jitter=0.8, grayscale=0.2, blur=0.3, solarize=0.2
    ).items():
        view = dataclasses.replace(still, **{name: probability})
        made = fused(images, view, uniforms(len(images)))
        changed = np.abs(made - images).reshape(len(images), -1).max(1) > 0.5
        assert changed.mean() == pytest.approx(probability, abs=0.03), name


@pytest.mark.parametrize(
    "preset",
    [
        "simclr",
        pytest.param("moco_v2", marks=once),
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


@settings(max_examples=12, deadline=None)
@given(
    extent=st.integers(1, 40),
    size=st.integers(1, 40),
    interpolation=st.sampled_from(["bilinear", "bicubic"]),
    data=st.data(),
)
def test_weights_sum_to_one_inside_the_box(extent, size, interpolation, data):
    length = data.draw(st.integers(1, extent))
    start = data.draw(st.integers(0, extent - length))
    made = compiled(
        lambda start, length: geometry.resize_matrix(
            ops, start, length, None, size, extent, interpolation
        )
    )(
        ops.convert_to_tensor([float(start)]),
        ops.convert_to_tensor([float(length)]),
    )
    matrix = ops.convert_to_numpy(made)[0]
    np.testing.assert_allclose(matrix.sum(1), 1.0, rtol=1e-5)
    outside = np.ones(extent, bool)
    outside[start : start + length] = False
    assert (matrix[:, outside] == 0).all()


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
    from kerassl.augmentation.namespace import tensorflow_namespace

    images = smooth_images(16)
    view = View(24, interpolation="bicubic", solarize=0.3)
    numbers = uniforms(len(images))
    made = make_view(tensorflow_namespace(), images, numbers, view)
    np.testing.assert_allclose(
        np.asarray(made), fused(images, view, numbers), atol=0.05
    )


@pytest.mark.parametrize(
    "shape", [(2, 3, 32, 32), (2, 32, 32, 2), (32, 32), (2, 2, 32, 32, 3)]
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
