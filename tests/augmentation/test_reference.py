"""The slow reference views are what they say."""

import dataclasses
import math

import numpy as np
import pytest

from tests.backends import once

from . import reference
from .reference import ReferenceView

pytestmark = once

IDENTITY = ReferenceView(
    size=32,
    crop_area=(1.0, 1.0),
    crop_ratio=(1.0, 1.0),
    flip=0.0,
    jitter=0.0,
    grayscale=0.0,
    blur=0.0,
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def image(rng):
    return rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)


@pytest.fixture
def smooth():
    rows, columns = np.mgrid[0:64, 0:64] / 63
    return np.stack(
        [200 * rows, 100 + 100 * columns, 255 - 200 * rows * columns], -1
    ).astype(np.uint8)


def same(first, second, levels=0):
    difference = np.abs(first.astype(int) - second.astype(int))
    assert difference.max() <= levels


# Crop.


def test_boxes_lie_inside_and_have_the_area_and_ratio_asked_for(rng):
    boxes = np.array(
        [
            reference.draw_box(rng, 200, 300, (0.2, 0.4), (3 / 4, 4 / 3))
            for _ in range(2000)
        ]
    )
    top, left, height, width = boxes.T
    assert (boxes[:, :2] >= 0).all()
    assert (top + height <= 200).all() and (left + width <= 300).all()
    area = height * width / (200 * 300)
    assert 0.195 < area.min() < 0.21 and 0.39 < area.max() < 0.405
    ratio = width / height
    assert 0.74 < ratio.min() < 0.76 and 1.31 < ratio.max() < 1.35
    # Everything fits, so area is uniform and ratio log-uniform.
    assert area.mean() == pytest.approx(0.3, abs=0.004)
    assert np.log(ratio).mean() == pytest.approx(0, abs=0.015)


@pytest.mark.parametrize(
    ("size", "expected"), [(32, 0.4902), (512, 0.478), (4096, 0.4776)]
)
def test_mean_area_of_boxes_in_a_square(rng, size, expected):
    # The mean over a grid of areas and ratios of what fits after rounding to
    # whole pixels: at 32 pixels, rounding makes crops larger.
    area = np.linspace(0.08, 1, 4001)[:, None]
    log_ratio = np.linspace(-1, 1, 401) * math.log(4 / 3)
    width = np.rint(size * np.sqrt(area * np.exp(log_ratio)))
    height = np.rint(size * np.sqrt(area / np.exp(log_ratio)))
    fits = (width <= size) & (height <= size)
    mean = (width * height)[fits].mean() / size**2
    assert mean == pytest.approx(expected, abs=0.001)
    boxes = [
        reference.draw_box(rng, size, size, (0.08, 1), (3 / 4, 4 / 3))
        for _ in range(20000)
    ]
    drawn = np.mean([h * w for _, _, h, w in boxes]) / size**2
    assert drawn == pytest.approx(mean, abs=0.007)


def test_a_box_can_be_anywhere(rng):
    boxes = np.array(
        [
            reference.draw_box(rng, 32, 32, (0.25, 0.25), (1, 1))
            for _ in range(3000)
        ]
    )
    assert set(boxes[:, 0]) == set(boxes[:, 1]) == set(range(17))
    assert abs(np.corrcoef(boxes[:, 0], boxes[:, 1])[0, 1]) < 0.06


@pytest.mark.parametrize(
    ("height", "width", "area", "ratio", "box"),
    [
        (30, 100, (1, 1), (3 / 4, 4 / 3), (0, 30, 30, 40)),
        (100, 30, (1, 1), (3 / 4, 4 / 3), (30, 0, 40, 30)),
        (32, 33, (2, 2), (3 / 4, 4 / 3), (0, 0, 32, 33)),
    ],
)
def test_box_falls_back_to_the_center(rng, height, width, area, ratio, box):
    assert reference.draw_box(rng, height, width, area, ratio) == box


def test_crop_without_resize_is_a_slice(image):
    crop = reference.resized_crop(image, (3, 5, 16, 16), 16)
    same(crop, image[3:19, 5:21])


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_crop_of_a_constant_is_constant(interpolation):
    image = np.zeros((40, 40, 3), np.uint8)
    image[10:25, 5:30] = 77  # What is outside of the box doesn't leak in.
    for size in (8, 64):
        crop = reference.resized_crop(image, (10, 5, 15, 25), size)
        same(crop, np.full((size, size, 3), 77))


def test_shrinking_is_antialiased():
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    small = reference.resized_crop(board[..., None], (0, 0, 64, 64), 16)
    assert small.shape == (16, 16, 1)
    same(small, np.full_like(small, 127), 6)


# Color.


@pytest.mark.parametrize("factor", [0.0, 0.2, 0.7, 1.0, 1.4, 1.8])
def test_brightness_multiplies_and_clips(image, factor):
    expected = np.clip(image * factor, 0, 255)
    same(reference.adjust_brightness(image, factor), expected, 1)


@pytest.mark.parametrize("factor", [0.0, 0.2, 0.7, 1.0, 1.4, 1.8])
def test_contrast_scales_about_the_mean_gray(image, factor):
    gray = reference.grayscale(image)[..., 0]
    mean = math.floor(gray.mean() + 0.5)
    expected = np.clip(mean + factor * (image - float(mean)), 0, 255)
    same(reference.adjust_contrast(image, factor), expected, 1)


@pytest.mark.parametrize("factor", [0.0, 0.2, 0.7, 1.0, 1.4, 1.8])
def test_saturation_scales_about_the_pixels_gray(image, factor):
    gray = reference.grayscale(image).astype(float)
    expected = np.clip(gray + factor * (image - gray), 0, 255)
    same(reference.adjust_saturation(image, factor), expected, 1)


def test_a_third_of_the_hue_turns_red_to_green_to_blue_to_red():
    red, green, blue = np.eye(3, dtype=np.uint8)[:, None, None] * 255
    same(reference.adjust_hue(red, 1 / 3), green)
    same(reference.adjust_hue(green, 1 / 3), blue)
    same(reference.adjust_hue(blue, 1 / 3), red)
    # Hues run from 0 to 255 but wrap at 256: one step too few.
    same(reference.adjust_hue(red, -1 / 3), blue, 6)


def test_hue_leaves_grays_and_value_alone(image):
    gray = reference.grayscale(image)
    same(reference.adjust_hue(gray, 0.3), gray)
    turned = reference.adjust_hue(image, 0.3)
    same(turned.max(-1), image.max(-1))


def test_hue_there_and_back(smooth):
    back = reference.adjust_hue(reference.adjust_hue(smooth, 0.2), -0.2)
    same(back, smooth, 16)
    assert np.abs(back - smooth.astype(float)).mean() < 2


def test_grayscale_is_luma_in_equal_channels(image):
    gray = reference.grayscale(image)
    assert gray.shape == image.shape
    same(gray[..., 0], gray[..., 1])
    same(gray[..., 0], gray[..., 2])
    same(gray[..., 0], image @ [0.299, 0.587, 0.114], 1)


def test_jitter_keeps_to_its_order(image):
    factors = {"brightness": 1.6, "contrast": 0.4}
    first = reference.color_jitter(image, factors, ["brightness", "contrast"])
    second = reference.color_jitter(image, factors, ["contrast", "brightness"])
    bright = reference.adjust_brightness(image, 1.6)
    same(first, reference.adjust_contrast(bright, 0.4))
    assert np.abs(first.astype(int) - second).max() > 5


def test_jitter_draws_torchvisions_ranges(rng):
    view = ReferenceView(32, brightness=0.4, contrast=1.5, hue=0.1)
    view = dataclasses.replace(view, saturation=0.0)
    draws = [reference.draw_factors(rng, view) for _ in range(2000)]
    for name, low, high in (
        ("brightness", 0.6, 1.4),
        ("contrast", 0.0, 2.5),
        ("hue", -0.1, 0.1),
    ):
        values = np.array([factors[name] for factors, _ in draws])
        span = high - low
        assert low <= values.min() < low + 0.01 * span
        assert high - 0.01 * span < values.max() <= high
    assert all("saturation" not in factors for factors, _ in draws)
    assert len({tuple(order) for _, order in draws}) == 24


# Blur and solarize.


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_blur_is_nearly_gaussian(sigma):
    dot = np.zeros((41, 41, 1), np.uint8)
    dot[18:23, 18:23] = 255
    offsets = np.arange(41)
    kernel = np.exp(-(((offsets[:, None] - offsets) / sigma) ** 2) / 2)
    kernel /= kernel.sum(1, keepdims=True)
    expected = kernel @ dot[..., 0] @ kernel.T
    same(reference.gaussian_blur(dot, sigma)[..., 0], expected, 10)


def test_blur_keeps_constants_to_the_edge():
    image = np.full((16, 16, 3), 93, np.uint8)
    same(reference.gaussian_blur(image, 2.0), image)


def test_solarize_inverts_from_the_threshold_on():
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    expected = np.where(ramp / 255 < 0.5, ramp, 255 - ramp)
    same(reference.solarize(ramp, 0.5), expected)


# Views.


@pytest.mark.parametrize("channels", [1, 3])
def test_identity_parameters_return_the_image(rng, image, channels):
    image = image[..., :channels]
    view = reference.make_view(rng, image, IDENTITY)
    assert view.dtype == np.uint8
    same(view, image)


@pytest.mark.parametrize("channels", [1, 3])
def test_everything_at_once(rng, image, channels):
    view = ReferenceView(24, blur=1, solarize=1, jitter=1, grayscale=1)
    made = reference.make_view(rng, image[..., :channels], view)
    assert made.shape == (24, 24, channels) and made.dtype == np.uint8


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("flip", lambda image: image[:, ::-1]),
        ("grayscale", reference.grayscale),
        ("solarize", reference.solarize),
    ],
)
def test_probabilities(rng, image, field, change):
    view = dataclasses.replace(IDENTITY, **{field: 0.3})
    changed = change(image)
    count = 0
    for _ in range(1000):
        made = reference.make_view(rng, image, view)
        count += np.array_equal(made, changed)
        assert np.array_equal(made, changed) or np.array_equal(made, image)
    assert 250 < count < 350


def test_views_follow_the_seed_and_differ_within_a_batch(image):
    images = np.stack([image] * 8)
    view = ReferenceView(32)
    first = reference.make_views(1, images, view)
    assert first.shape == images.shape and first.dtype == np.uint8
    same(first, reference.make_views(1, images, view))
    assert not np.array_equal(first, reference.make_views(2, images, view))
    assert len({made.tobytes() for made in first}) == 8


# The dataset.


def test_dataset_gives_the_same_batches_with_and_without_processes(rng):
    images = rng.integers(0, 256, (22, 16, 16, 3), dtype=np.uint8)
    views = {"view_1": ReferenceView(16), "view_2": ReferenceView(8)}

    def batches(processes, order):
        dataset = reference.ReferenceViews(
            images, views, batch_size=4, seed=3, processes=processes, prefetch=2
        )
        assert len(dataset) == 5
        found = {}
        with dataset:
            for epoch in range(2):
                for index in order:
                    found[epoch, index] = dataset[index]
                dataset.on_epoch_end()
        return found

    plain = batches(0, range(5))
    pooled = batches(2, [0, 1, 0, 4, 3, 2, 1])
    assert plain.keys() == pooled.keys()
    seen = set()
    for key, batch in plain.items():
        assert batch["view_1"].shape == (4, 16, 16, 3)
        assert batch["view_2"].shape == (4, 8, 8, 3)
        seen.add(batch["view_1"].tobytes())
        for name, made in batch.items():
            same(made, pooled[key][name])
    assert len(seen) == 10


def test_dataset_visits_every_image_once_an_epoch():
    images = np.arange(12, dtype=np.uint8)[:, None, None, None]
    images = np.broadcast_to(images, (12, 32, 32, 3))
    dataset = reference.ReferenceViews(
        images, {"view": IDENTITY}, batch_size=4, processes=0
    )
    orders = []
    for _ in range(2):
        batches = [dataset[index]["view"] for index in range(len(dataset))]
        orders.append(np.concatenate(batches)[:, 0, 0, 0].tolist())
        dataset.on_epoch_end()
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(12))
    assert orders[0] != orders[1]


def test_dataset_needs_a_full_batch(image):
    with pytest.raises(ValueError, match="1 images don't fill a batch of 4"):
        reference.ReferenceViews(image[None], {"view": IDENTITY}, 4)
