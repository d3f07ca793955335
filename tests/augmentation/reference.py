"""The slow, plain views of self-supervised learning: PIL and NumPy.

What torchvision's transforms do to a PIL image, written from their documented
behavior, one image and one operation at a time, rounded to uint8 and clipped
after each. The fused `kerassl.augmentation.ViewAugmenter` is compared with it,
and `scripts/comparisons/compare_views.py` trains on it.

Images are uint8 arrays (height, width, channels) with 1 or 3 channels. Order:
crop, flip, jitter, grayscale, blur, solarize (BYOL's).

Two things to know when comparing. PIL's Gaussian blur is three box blurs, which
on [0, 255] is within a few levels of a true Gaussian, with edges replicated.
PIL's blend cuts fractions off instead of rounding them, so that every color
operation costs up to one level.
"""

import dataclasses
import functools
import math
import multiprocessing
import threading
from concurrent import futures

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


@dataclasses.dataclass(frozen=True)
class ReferenceView:
    """How one view is made: the fields of `kerassl.augmentation.View`.

    `flip`, `jitter`, `grayscale`, `blur` and `solarize` are probabilities;
    `brightness`, `contrast`, `saturation` and `hue` are torchvision's strengths
    (0 leaves the operation out); `blur_sigma` is in pixels of the view;
    `solarize_threshold` is a share of 255.
    """

    size: int
    crop_area: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: str = "bilinear"
    flip: float = 0.5
    jitter: float = 0.8
    brightness: float = 0.8
    contrast: float = 0.8
    saturation: float = 0.8
    hue: float = 0.2
    grayscale: float = 0.2
    blur: float = 0.5
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarize: float = 0.0
    solarize_threshold: float = 0.5


def _to_pil(image):
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def _to_array(picture):
    array = np.asarray(picture)
    return array[..., None] if array.ndim == 2 else array


# Geometry.


def draw_box(rng, height, width, area, ratio):
    """Draws torchvision's random resized crop: (top, left, height, width).

    Ten tries at a box of uniform area and log-uniform ratio (width over
    height); when none fits, the largest central box with an allowed ratio.
    """
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(10):
        target = height * width * rng.uniform(*area)
        aspect = math.exp(rng.uniform(low, high))
        box_width = round(math.sqrt(target * aspect))
        box_height = round(math.sqrt(target / aspect))
        if 0 < box_width <= width and 0 < box_height <= height:
            top = int(rng.integers(0, height - box_height + 1))
            left = int(rng.integers(0, width - box_width + 1))
            return top, left, box_height, box_width
    box_height, box_width = height, width
    if width / height < min(ratio):
        box_height = round(width / min(ratio))
    elif width / height > max(ratio):
        box_width = round(height * max(ratio))
    top, left = (height - box_height) // 2, (width - box_width) // 2
    return top, left, box_height, box_width


def resized_crop(image, box, size, interpolation="bilinear"):
    """Cuts the box (top, left, height, width) out, then resizes, antialiased.

    The filter sees nothing outside of the box.
    """
    top, left, height, width = box
    crop = _to_pil(image).crop((left, top, left + width, top + height))
    return _to_array(crop.resize((size, size), _FILTERS[interpolation]))


# Color.


def adjust_brightness(image, factor):
    """Blends with black."""
    return _to_array(ImageEnhance.Brightness(_to_pil(image)).enhance(factor))


def adjust_contrast(image, factor):
    """Blends with the image's mean gray, rounded to an integer."""
    return _to_array(ImageEnhance.Contrast(_to_pil(image)).enhance(factor))


def adjust_saturation(image, factor):
    """Blends each pixel with its own gray."""
    return _to_array(ImageEnhance.Color(_to_pil(image)).enhance(factor))


def adjust_hue(image, shift):
    """Turns the hue by `shift` of a full circle, in [-0.5, 0.5], in uint8 HSV.

    A shift of 0 is not quite the identity: the way to HSV and back rounds.
    """
    if image.shape[-1] == 1:
        return image
    hsv = np.array(Image.fromarray(image).convert("HSV"))
    hsv[..., 0] += np.int32(shift * 255).astype(np.uint8)  # Wraps at 256.
    return np.asarray(Image.fromarray(hsv, "HSV").convert("RGB"))


def grayscale(image):
    """ITU-R 601-2 luma in every channel."""
    if image.shape[-1] == 1:
        return image
    return np.repeat(_to_array(_to_pil(image).convert("L")), 3, axis=-1)


def color_jitter(image, factors, order):
    """Applies the named operations in the given order.

    Args:
        image: The image.
        factors: Name (brightness, contrast, saturation, hue) to factor, or for
            hue to shift. Names that are not there are left out.
        order: The four names. A gray image ignores saturation and hue.
    """
    steps = {
        "brightness": adjust_brightness,
        "contrast": adjust_contrast,
    }
    if image.shape[-1] == 3:
        steps |= {"saturation": adjust_saturation, "hue": adjust_hue}
    for name in order:
        if name in steps and name in factors:
            image = steps[name](image, factors[name])
    return image


def draw_factors(rng, view):
    """Draws `factors` and `order` for `color_jitter`."""
    factors = {}
    for name in ("brightness", "contrast", "saturation"):
        if strength := getattr(view, name):
            factors[name] = rng.uniform(max(0.0, 1 - strength), 1 + strength)
    if view.hue:
        factors["hue"] = rng.uniform(-view.hue, view.hue)
    names = ("brightness", "contrast", "saturation", "hue")
    return factors, [names[i] for i in rng.permutation(4)]


def jitter(rng, image, view):
    """Color jitter with drawn factors, in drawn order."""
    return color_jitter(image, *draw_factors(rng, view))


def gaussian_blur(image, sigma):
    """Blurs by sigma pixels."""
    return _to_array(_to_pil(image).filter(ImageFilter.GaussianBlur(sigma)))


def solarize(image, threshold=0.5):
    """Inverts what reaches the threshold, a share of 255."""
    return _to_array(ImageOps.solarize(_to_pil(image), threshold * 255))


# Views.


def make_view(rng, image, view):
    """Makes one view of one image (uint8, height x width x channels)."""
    box = draw_box(rng, *image.shape[:2], view.crop_area, view.crop_ratio)
    image = resized_crop(image, box, view.size, view.interpolation)
    if rng.random() < view.flip:
        image = image[:, ::-1]
    if rng.random() < view.jitter:
        image = jitter(rng, image, view)
    if rng.random() < view.grayscale:
        image = grayscale(image)
    if rng.random() < view.blur:
        image = gaussian_blur(image, rng.uniform(*view.blur_sigma))
    if rng.random() < view.solarize:
        image = solarize(image, view.solarize_threshold)
    return np.ascontiguousarray(image)


def make_views(rng_seed, images, view):
    """Makes one view of each image; the same seed makes the same views."""
    rng = np.random.default_rng(rng_seed)
    return np.stack([make_view(rng, image, view) for image in images])


def _make_batch(seed, images, views):
    return {
        name: make_views([*seed, number], images, view)
        for number, (name, view) in enumerate(views.items())
    }


@functools.cache
def _reference_views_class():
    # Keras is imported here, not above, because each worker process imports
    # this module: Keras would bring TensorFlow or PyTorch into all of them.
    import keras

    class ReferenceViews(keras.utils.PyDataset):
        """Batches of reference views, made ahead by worker processes.

        Every epoch goes through the images in a new order and drops what
        doesn't fill a batch. A batch depends only on (seed, epoch, index). Fit
        with `shuffle=False`, so that batches are asked for in the order in
        which they are made (another order costs waiting, nothing else).

        Args:
            images: uint8 array (count, height, width, channels).
            views: Name of each view to its `ReferenceView`.
            batch_size: Images a batch.
            seed: A whole number.
            processes: Worker processes; 0 makes the views in this process.
            prefetch: Batches to make ahead.
        """

        def __init__(
            self,
            images,
            views,
            batch_size,
            seed=0,
            processes=2,
            prefetch=4,
        ):
            # `workers` are Keras's own, which aren't used.
            super().__init__(workers=1)
            if len(images) < batch_size:
                raise ValueError(
                    f"{len(images)} images don't fill a batch of {batch_size}."
                )
            self.images = np.asarray(images)
            self.views = dict(views)
            self.batch_size = batch_size
            self.seed = seed
            self.epoch = 0
            self._prefetch = prefetch
            self._lock = threading.RLock()  # TensorFlow asks from a thread.
            self._pending = {}  # (epoch, index) to its future.
            self._given = set()  # What needs no making ahead any more.
            self._order = functools.lru_cache(2)(self._new_order)
            self._pool = None
            if processes:
                # Not fork: JAX, TensorFlow and PyTorch run threads by now.
                self._pool = futures.ProcessPoolExecutor(
                    processes, multiprocessing.get_context("spawn")
                )
                for index in range(prefetch):
                    self._submit(index)

        def __len__(self):
            return len(self.images) // self.batch_size

        def __getitem__(self, index):
            if not 0 <= index < len(self):
                raise IndexError(index)
            if self._pool is None:
                return _make_batch(*self._task(self.epoch, index))
            with self._lock:
                start = self.epoch * len(self) + index
                self._submit(start)
                for position in range(start + 1, start + 1 + self._prefetch):
                    if divmod(position, len(self)) not in self._given:
                        self._submit(position)
                key = self.epoch, index
                self._given.add(key)
                batch = self._pending.pop(key)
            return batch.result()

        def on_epoch_end(self):
            with self._lock:
                self.epoch += 1
                for key in [k for k in self._pending if k[0] < self.epoch]:
                    self._pending.pop(key).cancel()
                self._given = {k for k in self._given if k[0] >= self.epoch}

        def close(self):
            """Ends the worker processes."""
            if self._pool is not None:
                self._pool.shutdown(cancel_futures=True)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.close()

        def _new_order(self, epoch):
            rng = np.random.default_rng([self.seed, epoch])
            return rng.permutation(len(self.images))

        def _task(self, epoch, index):
            start = index * self.batch_size
            chosen = self._order(epoch)[start : start + self.batch_size]
            return (self.seed, epoch, index), self.images[chosen], self.views

        def _submit(self, position):
            key = divmod(position, len(self))
            if key not in self._pending:
                task = self._task(*key)
                self._pending[key] = self._pool.submit(_make_batch, *task)

    return ReferenceViews


def __getattr__(name):
    """Gives `ReferenceViews`, a `keras.utils.PyDataset`, when asked for it."""
    if name == "ReferenceViews":
        return _reference_views_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
