"""Crops of whole photos, cut while they are decoded."""

import math
import random

import keras
import numpy as np
import pytest
from PIL import Image, ImageOps
from scipy import stats

import kerassl
from kerassl import names
from kerassl.augmentation import (
    CenterCrop,
    RandomResizedCrop,
    Resize,
    View,
    ViewAugmenter,
    geometry,
)
from kerassl.data import resize
from kerassl.data.batches import CROPS
from kerassl.data.cuts import draw_box
from kerassl.data.decode import Cut, decode_cuts
from kerassl.data.photos import Photos
from kerassl.evaluation import fine_tune
from kerassl.visualization import draw_views
from tests.backends import once
from tests.contracts.methods import METHODS, tiny_encoder

# Of a camera, of ImageNet, and extreme ones.
SIZES = [(375, 500), (500, 375), (200, 200), (1200, 1600), (60, 400), (900, 80)]
ORIENTATION = 0x0112


def reference_box(rng, height, width, area, ratio):
    """torchvision's algorithm, as its documentation describes it."""
    for _ in range(10):
        target = height * width * rng.uniform(*area)
        aspect = math.exp(rng.uniform(*map(math.log, ratio)))
        w = round(math.sqrt(target * aspect))
        h = round(math.sqrt(target / aspect))
        if 0 < w <= width and 0 < h <= height:
            return rng.randint(0, height - h), rng.randint(0, width - w), h, w
    w, h = width, height
    if width / height < ratio[0]:
        h = round(w / ratio[0])
    elif width / height > ratio[1]:
        w = round(h * ratio[1])
    return (height - h) // 2, (width - w) // 2, h, w


@once
@pytest.mark.parametrize("area", [(0.08, 1.0), (0.05, 0.14)])
def test_crops_are_distributed_as_on_the_original(area):
    rng, ours = random.Random(0), np.random.default_rng(1)
    ratio = (3 / 4, 4 / 3)
    plan = ViewAugmenter([View(32, crop_area=area)]).crop_plan
    found = {"ours": [], "reference": []}
    for i in range(24_000):
        height, width = SIZES[i % len(SIZES)]
        numbers = ours.random(plan.num_uniforms).tolist()
        boxes = {
            "ours": plan.cuts(numbers, height, width)[0][:4],
            "reference": reference_box(rng, height, width, area, ratio),
        }
        for name, (top, left, h, w) in boxes.items():
            assert 0 <= top <= height - h and 0 <= left <= width - w
            found[name].append(
                (
                    h * w / height / width,
                    w / h,
                    (top + h / 2) / height,
                    (left + w / 2) / width,
                )
            )
    for one, other in zip(
        np.transpose(found["ours"]), np.transpose(found["reference"])
    ):
        assert stats.ks_2samp(one, other).statistic <= 0.03


@pytest.mark.parametrize("size", SIZES)
def test_host_and_device_draw_the_same_boxes(size):
    numbers = np.random.default_rng(0).random((200, 22)).astype("float32")
    area, ratio = (0.08, 1.0), (3 / 4, 4 / 3)
    parts = np.split(numbers, [10, 20, 21], axis=1)
    names = ("area", "ratio", "top", "left")
    drawn = dict(zip(names, map(keras.ops.convert_to_tensor, parts)))
    device = geometry.draw_box(keras.ops, drawn, *size, area, ratio)
    device = np.stack([keras.ops.convert_to_numpy(n) for n in device], axis=1)
    host = [draw_box(row, *size, area, ratio) for row in numbers.tolist()]
    # Roundings of float32 may differ.
    assert (np.abs(device - host).max(axis=1) <= 1).all()
    assert (device == host).all(axis=1).mean() > 0.98


def photo(path, height, width, orientation=1, **kwargs):
    """Saves something like a photo: shapes, a gradient and grain."""
    rng = np.random.default_rng(height + orientation)
    few = rng.integers(0, 256, (9, 12, 3)).astype("uint8")
    image = Image.fromarray(few).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    pixels = np.asarray(image) + rng.normal(0, 9, (height, width, 1))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    image = Image.fromarray(pixels.clip(0, 255).astype("uint8"))
    path.parent.mkdir(exist_ok=True, parents=True)
    image.save(path, exif=exif, **kwargs)
    return path


@once
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 7])
def test_a_crop_is_that_of_the_original(tmp_path, suffix, orientation):
    for number, (height, width) in enumerate(SIZES):
        path = photo(tmp_path / f"{number}{suffix}", height, width, orientation)
        with Image.open(path) as file:
            original = ImageOps.exif_transpose(file).convert("RGB")
        rng, seen = random.Random(number), []

        def plan(height, width):
            seen.append((height, width))
            for kind in ("bilinear", "bicubic"):
                box = reference_box(rng, height, width, (0.08, 1), (0.75, 1.33))
                seen.append(Cut(*box, 224, kind))
            return seen[1:]

        cuts = decode_cuts(path, plan)
        assert seen[0] == (original.height, original.width)
        for cut, (top, left, h, w, size, kind) in zip(cuts, seen[1:]):
            right = original.resize(
                (size, size),
                getattr(Image.Resampling, kind.upper()),
                box=(left, top, left + w, top + h),
            )
            difference = np.abs(cut - np.asarray(right, "float32"))
            assert difference.mean() <= 2


@once
@pytest.mark.parametrize("kind", ["bilinear", "bicubic"])
def test_the_fast_resizer_is_pillows_but_for_rounding(tmp_path, kind):
    pytest.importorskip("cykooz_resizer")
    rng = random.Random(0)
    for height, width in SIZES:
        path = photo(tmp_path / "x.png", height, width)
        with Image.open(path) as file:
            file.load()
        for size in (32, 224):
            area, ratio = (0.08, 1), (3 / 4, 4 / 3)
            top, left, h, w = reference_box(rng, height, width, area, ratio)
            box = (left + 0.5, top, left + w, top + h - 0.25)
            found = resize._fast()(file, box, (size, size), kind)
            filter = getattr(Image.Resampling, kind.upper())
            right = np.asarray(file.resize((size, size), filter, box))
            difference = np.abs(found.astype("float32") - right)
            assert difference.mean() <= 0.5 and difference.max() <= 3


@once
@pytest.mark.parametrize("installed", [True, False])
def test_other_modes_and_without_the_fast_resizer(monkeypatch, installed):
    if not installed:
        monkeypatch.setattr(resize, "_fast", lambda: None)
    for mode in ("L", "RGB", "RGBA"):
        image = Image.new(mode, (30, 20), "red")
        made = resize.resize_box(image, (3, 2, 27, 20), (8, 8), "bicubic")
        right = np.asarray(Image.new(mode, (8, 8), "red"))
        np.testing.assert_array_equal(made, right)


def test_a_large_photo_is_decoded_at_a_fraction(tmp_path):
    path = photo(tmp_path / "x.jpg", 1200, 1600)
    boxes = [Cut(0, 0, 1200, 1600, 32), Cut(100, 50, 1000, 900, 32)]
    with Image.open(path) as file:
        original = file.convert("RGB")
    for cut, box in zip(decode_cuts(path, lambda h, w: boxes), boxes):
        top, left, h, w, *_ = box
        right = original.resize(
            (32, 32), Image.Resampling.BILINEAR, (left, top, left + w, top + h)
        )
        assert np.abs(cut - np.asarray(right, "float32")).mean() <= 2


def test_pipelines_that_begin_otherwise_are_not_cut():
    crop = RandomResizedCrop(8)
    assert ViewAugmenter([crop]).crop_plan.sizes == {"view_1": 8, "view_2": 8}
    assert ViewAugmenter({"a": [crop], "b": [Resize(9)]}).crop_plan.sizes == {
        "a": 8,
        "b": 9,
    }
    for first in (CenterCrop(8), kerassl.augmentation.RandomGrayscale()):
        views = {"a": [crop], "b": [first, crop]}
        assert ViewAugmenter(views).crop_plan is None


@pytest.fixture
def wide(tmp_path):
    """Wide photos: gray, with a red left edge that a center crop loses."""
    for i in range(12):
        pixels = np.full((40, 120, 3), 60 + 8 * i, "uint8")
        pixels[:, :25] = (255, 0, 0)
        Image.fromarray(pixels).save(tmp_path / f"{i:02}.png")
    return tmp_path


def red(images):
    """Says which images have red in them."""
    x = keras.ops.convert_to_numpy(images).astype("float32")
    return (x[..., 0] - x[..., 1]).max(axis=(1, 2)) > 100


@pytest.mark.parametrize("in_memory", [True, False])
def test_training_sees_the_whole_photos(wide, monkeypatch, in_memory):
    if not in_memory:
        monkeypatch.setattr("kerassl.data.photo_checks._IN_MEMORY_BYTES", 0)
    data = kerassl.data.load(wide, image_size=28)
    assert not red(data.images[:]).any()
    view = View(28, jitter=0.0, grayscale=0.0, blur=0.0)
    augmenter = ViewAugmenter(view, seed=0)
    model = METHODS["simclr"](tiny_encoder((28, 28, 3)), augmenter=augmenter)
    model.compile(keras.optimizers.SGD(0.05))
    history = model.fit(data, batch_size=4, epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    # Other images of the same model are resized, as always.
    assert model.embed(data).shape == (12, 24)
    assert np.isfinite(model.evaluate(data, batch_size=4, verbose=0)).all()
    batches = data.batches(12)
    batches.cut(augmenter.crop_plan)
    views = model.make_views(batches[0][0])
    assert views["view_1"].shape == (12, 28, 28, 3)
    assert 1 <= red(views["view_1"]).sum() < 12


def test_the_same_crops_again(wide):
    data = kerassl.data.load(wide, image_size=28)
    plan = kerassl.augmentation.swav(28, local_size=12).crop_plan

    def batch(step, size=4, **kwargs):
        batches = data.batches(size, shuffle=True, seed=3, **kwargs)
        batches.cut(plan)
        return batches[step][0][CROPS]

    first = batch(2, epoch=1)
    again = batch(0, epoch=1, start_step=2)
    assert {n: v.shape[1] for n, v in first.items()} == plan.sizes
    for name, crops in first.items():
        np.testing.assert_array_equal(crops, again[name])
    # Other views, images, steps and epochs have others.
    assert (first["view_1"] != first["view_2"]).any()
    for other in (batch(2, epoch=0), batch(1, epoch=1)):
        assert (first["view_1"] != other["view_1"]).any()
    # Processes that share a batch cut what one would.
    parts = [batch(2, epoch=1, part=(i, 2)) for i in range(2)]
    joined = np.concatenate([part["view_1"] for part in parts])
    np.testing.assert_array_equal(joined, first["view_1"])


def test_pictures_and_fine_tuning_see_the_whole_photos(wide, monkeypatch):
    images = kerassl.data.load(wide, image_size=28).images
    encoder = tiny_encoder((28, 28, 3))
    model = METHODS["simclr"](encoder)
    drawn = draw_views(model, images, seed=1)
    assert 1 <= red(drawn["view_1"]).sum() < 12
    again = draw_views(model, images, seed=1)
    np.testing.assert_array_equal(drawn["view_2"], again["view_2"])
    calls = []

    def read_cuts(self, indices, *args):
        views, used = real(self, indices, *args)
        calls.append(red(*views.values()))
        return views, used

    real = Photos.read_cuts
    monkeypatch.setattr(Photos, "read_cuts", read_cuts)
    labeled = images, np.arange(12) % 2
    scores = fine_tune(
        encoder, labeled, labeled, epochs=2, batch_size=6, learning_rate=0.1
    )
    # Keras may take a batch to build the model.
    assert 0 <= scores["accuracy"] <= 1 and len(calls) >= 4
    assert 1 <= np.concatenate(calls).sum() < 6 * len(calls)


def test_each_fit_has_other_crops(wide):
    data = kerassl.data.load(wide, image_size=28)
    model = METHODS["simclr"](tiny_encoder((28, 28, 3)))
    seen = []
    for _ in range(2):
        batches = model.inputs_for().read(data, 12)
        seen.append(batches[0][0][CROPS]["view_1"])
    assert (seen[0] != seen[1]).any()


@once
@pytest.mark.parametrize("name", names.VIEWS)
def test_the_views_of_every_recipe_are_cut(name):
    plan = getattr(kerassl.augmentation, name)(64).crop_plan
    height, width = 240, 300
    numbers = np.random.default_rng(0).random(plan.num_uniforms).tolist()
    cuts = plan.cuts(numbers, height, width)
    assert [cut.size for cut in cuts] == list(plan.sizes.values())
    assert len(set(cuts)) == len(cuts)


@once
@pytest.mark.parametrize("name", ["jigsaw", "mae", "swav"])
def test_tiles_masks_and_small_crops_of_whole_photos(wide, name):
    data = kerassl.data.load(wide, image_size=28)
    model = METHODS[name](tiny_encoder((28, 28, 3)))
    assert model.augmenter.crop_plan is not None
    model.compile(keras.optimizers.SGD(0.01))
    images = data.batches(6)
    history = model.fit(images, epochs=1, shuffle=False, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert CROPS in images[0][0]
