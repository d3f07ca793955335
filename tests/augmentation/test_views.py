"""The built-in operations against the slow ones."""

from collections import Counter

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from keras import ops
from scipy import stats

from kerassl import augmentation
from kerassl.augmentation import ColorJitter, RandomResizedCrop, color, geometry
from kerassl.augmentation.pipeline import Pipeline
from tests.augmentation import reference
from tests.augmentation.fused import (
    STILL,
    fused,
    fused_view,
    photos,
    smooth_images,
    still,
    uniforms,
)
from tests.backends import (
    compiled,
    count_kernels,
    count_waits,
    examples,
    more,
    once,
)

BACKEND = keras.config.backend()


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


def test_nothing_happens_in_a_still_view():
    images = smooth_images()
    views = fused_view(images, STILL)
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
    made = fused_view(images, still(flip=0.5), flip=0.25)
    np.testing.assert_allclose(made, images[:, :, ::-1], atol=1e-3)


@once  # test_photos.py compares each backend's boxes with the host's.
@pytest.mark.parametrize("height,width", [(32, 32), (30, 64), (64, 30)])
def test_boxes_are_distributed_as_torchvisions(height, width):
    area, ratio, count = (0.08, 1.0), (3 / 4, 4 / 3), 20000
    rng = np.random.default_rng(0)
    columns = {
        name: rng.random((count, width)).astype("float32")
        for name, width in RandomResizedCrop.uniforms.items()
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
    view = still(jitter=1.0, **(neutral | {name: 0.8}))
    given = {"order": place_first(position), name: u}
    made = fused_view(images, view, **given)
    slow = getattr(reference, f"adjust_{name}")
    factor = 0.2 + 1.6 * u
    expected = np.stack([slow(image, factor) for image in images])
    # PIL cuts fractions, and rounds the contrast's mean.
    np.testing.assert_allclose(made, expected, atol=2.5)


@pytest.mark.parametrize("hue", [0.0, 0.1, 0.4])
def test_jitter_in_every_order_is_pils(hue):
    names = ["brightness", "contrast", "saturation"]
    images = photos()
    jitter = ColorJitter(hue=hue, probability=1.0)
    numbers = uniforms(len(images), [jitter])
    widths = ColorJitter.uniforms
    column = dict(zip(widths, np.cumsum([0, *widths.values()])))
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
    difference = np.abs(fused(images, [jitter], numbers) - np.stack(expected))
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
@settings(max_examples=examples(50))
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
@more("test_a_view_compiles_without_a_break")
def test_a_compiled_view_takes_few_kernels():
    import torch
    from torch._inductor import metrics

    operations = augmentation.byol(48).views["view_2"].operations()
    view = Pipeline(operations)
    images = ops.convert_to_tensor(smooth_images(4))
    numbers = ops.convert_to_tensor(uniforms(4, operations))
    compiled_view = torch.compile(
        lambda *arrays: view(ops, *arrays), fullgraph=True
    )
    expected = view(ops, images, numbers)
    metrics.reset()
    np.testing.assert_allclose(
        compiled_view(images, numbers), expected, atol=0.05
    )
    assert 0 < metrics.generated_kernel_count <= 60


@once
@pytest.mark.parametrize(
    "name, kernels", [("simclr", 190), ("byol", 370), ("swav", 370)]
)
def test_views_take_few_kernels_and_a_wait(name, kernels, monkeypatch):
    monkeypatch.setattr("kerassl.augmentation.augmenter._is_cpu", lambda: False)
    augmenter = getattr(augmentation, name)(32)
    images = ops.convert_to_tensor(smooth_images(4))
    augmenter(images)
    assert count_kernels(lambda: augmenter(images)) <= kernels
    # Keras's generators read their seed.
    assert count_waits(lambda: augmenter(images)) <= 1


@pytest.mark.skipif(BACKEND != "tensorflow", reason="TensorFlow's graphs")
def test_views_of_a_batch_of_any_size_take_no_more_operations():
    import tensorflow as tf

    augmenter, found = augmentation.simclr(32), []
    for size in (64, None):
        graph = (
            tf.function(augmenter)
            .get_concrete_function(tf.TensorSpec((size, 32, 32, 3), "uint8"))
            .graph
        )
        found.append(Counter(node.type for node in graph.get_operations()))
    known, unknown = found
    # Those that cost most; constants cost nothing.
    assert known["BatchMatMulV2"] == unknown["BatchMatMulV2"] == 2 * 16
    for counts in found:
        del counts["Const"]
    assert known.total() <= 530
    assert unknown.total() <= known.total() + 10


@once
def test_a_view_compiles_without_a_break():
    import torch

    operations = augmentation.byol(48).views["view_2"].operations()
    view = Pipeline(operations)
    images = ops.convert_to_tensor(smooth_images(4))
    numbers = ops.convert_to_tensor(uniforms(4, operations))
    compiled_view = torch.compile(
        lambda *arrays: view(ops, *arrays), fullgraph=True, backend="eager"
    )
    np.testing.assert_array_equal(
        compiled_view(images, numbers), view(ops, images, numbers)
    )


def test_grayscale_is_pils():
    images = smooth_images()
    made = fused_view(images, still(grayscale=0.2), grayscale=0.1)
    expected = np.stack([reference.grayscale(image) for image in images])
    np.testing.assert_allclose(made, expected, atol=1.0)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_blur_is_near_pils(sigma):
    images = smooth_images(16, size=64)
    view = still(size=64, blur=1.0, blur_sigma=(0.1, 2.0))
    made = fused_view(images, view, blur=0.0, sigma=(sigma - 0.1) / 1.9)
    expected = np.stack([reference.gaussian_blur(i, sigma) for i in images])
    inner = (slice(None), slice(6, -6), slice(6, -6))
    assert np.abs(made[inner] - expected[inner]).max() < 4
    assert np.abs(made - expected).mean() < 1.5


def test_solarize_inverts_bright_pixels():
    images = smooth_images()
    view = still(solarize=0.2, solarize_threshold=0.5)
    made = fused_view(images, view, solarize=0.1)
    expected = np.where(images >= 127.5, 255.0 - images, images)
    np.testing.assert_allclose(made, expected, atol=1e-3)


def test_each_probability_is_respected():
    images = smooth_images(4000, size=8)
    for name, probability in dict(
        flip=0.5, jitter=0.8, grayscale=0.2, blur=0.3, solarize=0.2
    ).items():
        # A narrow blur hardly shows.
        given = {"sigma": 0.5} if name == "blur" else {}
        view = still(size=8, **{name: probability})
        made = fused_view(images, view, **given)
        changed = np.abs(made - images).reshape(len(images), -1).max(1) > 0.5
        assert changed.mean() == pytest.approx(probability, abs=0.03), name


@settings(max_examples=examples(12))
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
