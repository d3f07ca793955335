"""Corrupted images: noise, blur, weather and compression.

The kinds are those of ImageNet-C except frost, which needs photos of it. They
are written from their descriptions, with strengths relative to the size of the
image, so that scores aren't comparable with published ones.
"""

import io
from collections.abc import Callable
from typing import Any

import numpy as np

from kerassl.choices import check_choice
from kerassl.data import check_images

SEVERITIES = 5
# The side of the images that strengths in pixels refer to.
SIDE = 32
Corruption = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]


def corrupt(
    images: Any, kind: str, severity: int = 3, seed: int = 0
) -> np.ndarray:
    """Returns corrupted images.

    Args:
        images: array `(N, H, W, C)`, uint8 or float in [0, 255].
        kind: str, one of `kerassl.evaluation.CORRUPTIONS`: `gaussian_noise`,
            `shot_noise`, `impulse_noise`, `defocus_blur`, `glass_blur`,
            `motion_blur`, `zoom_blur`, `snow`, `fog`, `brightness`,
            `contrast`, `elastic_transform`, `pixelate`, `jpeg_compression`.
        severity: int in [1, 5].
        seed: int. An image's corruption depends only on the seed and on its
            place in the array.

    Returns:
        A uint8 array of the same shape.

    Raises:
        ValueError: if the shape, dtype or range of the images is wrong, or the
            kind or the severity is unknown.

    Example:
    ```python
    foggy = kerassl.evaluation.corrupt(test_images, "fog", severity=3)
    kerassl.evaluation.knn(
        model.embed(images), labels, model.embed(foggy), test_labels
    )
    ```

    Reference:
        - [Hendrycks and Dietterich, 2019](https://arxiv.org/abs/1903.12261)
    """
    check_images(images)
    check_choice("corruption", kind, CORRUPTIONS)
    if severity not in range(1, SEVERITIES + 1):
        raise ValueError(
            f"`severity` must be between 1 and {SEVERITIES}. Received: "
            f"{severity}"
        )
    function = CORRUPTIONS[kind]
    out = np.empty(np.shape(images), "uint8")
    for i in range(len(out)):
        image = np.asarray(images[i], "float32") / 255
        rng = np.random.default_rng([seed, i])
        changed = function(image, severity - 1, rng)
        out[i] = np.rint(255 * np.clip(changed, 0, 1))
    return out


def _gaussian_noise(x, level, rng):
    return x + rng.normal(0, (0.04, 0.06, 0.08, 0.1, 0.13)[level], x.shape)


def _shot_noise(x, level, rng):
    photons = (400, 200, 100, 60, 35)[level]
    return rng.poisson(x * photons) / photons


def _impulse_noise(x, level, rng):
    share = (0.01, 0.02, 0.04, 0.07, 0.1)[level]
    drawn = rng.random(x.shape)
    return np.where(drawn < share, drawn < share / 2, x)


def _defocus_blur(x, level, rng):
    radius = (0.8, 1.1, 1.4, 1.8, 2.3)[level] * _scale(x)
    steps = np.arange(-int(radius + 1), int(radius + 1) + 1)
    distance = np.hypot(steps[:, None], steps)
    # The edge of the disk is smooth over one pixel.
    return _convolved(x, np.clip(radius + 0.5 - distance, 0, 1))


def _glass_blur(x, level, rng):
    """Neighboring pixels change places, between two blurs."""
    far = (0.5, 0.7, 0.9, 1.2, 1.5)[level] * _scale(x)
    soft = _blurred(x, 0.4 * _scale(x))
    offsets = rng.uniform(-far, far, (2, *x.shape[:2]))
    return _blurred(_moved(soft, offsets, order=0), 0.4 * _scale(x))


def _motion_blur(x, level, rng):
    length = (2.5, 3.5, 4.5, 6.0, 8.0)[level] * _scale(x)
    angle = rng.uniform(0, np.pi)
    half = int(length / 2 + 1)
    kernel = np.zeros((2 * half + 1, 2 * half + 1))
    for along in np.linspace(-length / 2, length / 2, 8 * half):
        row = round(half + along * np.sin(angle))
        kernel[row, round(half + along * np.cos(angle))] += 1
    return _convolved(x, kernel)


def _zoom_blur(x, level, rng):
    largest = (1.06, 1.12, 1.18, 1.24, 1.32)[level]
    return np.mean(
        [_zoomed(x, zoom) for zoom in np.linspace(1, largest, 8)], axis=0
    )


def _snow(x, level, rng):
    share = (0.02, 0.035, 0.05, 0.07, 0.09)[level]
    flakes = rng.random((*x.shape[:2], 1)) < share
    fallen = 3 * _motion_blur(flakes.astype("float32"), 0, rng)
    light = (0.1, 0.15, 0.2, 0.25, 0.3)[level]
    return (1 - light) * x + light + np.minimum(fallen, 1)


def _fog(x, level, rng):
    thick = (0.25, 0.4, 0.55, 0.75, 1.0)[level]
    return (x + thick * _clouds(x.shape[:2], rng)[..., None]) / (1 + thick)


def _brightness(x, level, rng):
    return x + (0.08, 0.14, 0.2, 0.27, 0.35)[level]


def _contrast(x, level, rng):
    mean = x.mean((0, 1))
    return mean + (x - mean) * (0.7, 0.5, 0.38, 0.27, 0.18)[level]


def _elastic_transform(x, level, rng):
    far = (0.7, 1.0, 1.3, 1.7, 2.2)[level] * _scale(x)
    drawn = rng.normal(size=(2, *x.shape[:2], 1))
    smooth = np.stack([_blurred(d, 2.5 * _scale(x))[..., 0] for d in drawn])
    return _moved(x, far * smooth / max(smooth.std(), 1e-6))


def _pixelate(x, level, rng):
    from PIL import Image

    share = (0.75, 0.6, 0.5, 0.4, 0.33)[level]
    height, width = x.shape[:2]
    small = (max(1, round(width * share)), max(1, round(height * share)))

    def pixelated(plane: Image.Image) -> Image.Image:
        coarse = plane.resize(small, Image.Resampling.BOX)
        return coarse.resize((width, height), Image.Resampling.NEAREST)

    return _planes(x, pixelated)


def _jpeg_compression(x, level, rng):
    from PIL import Image

    levels = np.rint(255 * x).astype("uint8")

    def compressed(part: np.ndarray) -> np.ndarray:
        file = io.BytesIO()
        quality = (70, 50, 35, 25, 15)[level]
        Image.fromarray(part).save(file, "JPEG", quality=quality)
        return np.asarray(Image.open(file), "float32")

    if x.shape[-1] == 3:
        return compressed(levels) / 255
    planes = [compressed(p) for p in np.moveaxis(levels, -1, 0)]
    return np.stack(planes, -1) / 255


CORRUPTIONS: dict[str, Corruption] = {
    "gaussian_noise": _gaussian_noise,
    "shot_noise": _shot_noise,
    "impulse_noise": _impulse_noise,
    "defocus_blur": _defocus_blur,
    "glass_blur": _glass_blur,
    "motion_blur": _motion_blur,
    "zoom_blur": _zoom_blur,
    "snow": _snow,
    "fog": _fog,
    "brightness": _brightness,
    "contrast": _contrast,
    "elastic_transform": _elastic_transform,
    "pixelate": _pixelate,
    "jpeg_compression": _jpeg_compression,
}


def _scale(x: np.ndarray) -> float:
    return max(x.shape[:2]) / SIDE


def _planes(x: np.ndarray, function: Callable) -> np.ndarray:
    """Applies a function of Pillow's images to each channel."""
    from PIL import Image

    planes = np.moveaxis(x, -1, 0).astype("float32")
    done = [np.asarray(function(Image.fromarray(plane))) for plane in planes]
    return np.stack(done, -1)


def _convolved(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    from scipy import ndimage

    kernel = (kernel / kernel.sum())[..., None]
    return ndimage.convolve(x, kernel, mode="reflect")


def _blurred(x: np.ndarray, sigma: float) -> np.ndarray:
    from scipy import ndimage

    return ndimage.gaussian_filter(x, (sigma, sigma, 0), mode="reflect")


def _moved(x: np.ndarray, offsets: np.ndarray, order: int = 1) -> np.ndarray:
    """Returns an image whose pixels are taken from other places."""
    from scipy import ndimage

    places = np.indices(x.shape[:2]) + offsets
    planes = [
        ndimage.map_coordinates(plane, places, order=order, mode="reflect")
        for plane in np.moveaxis(x, -1, 0)
    ]
    return np.stack(planes, -1)


def _zoomed(x: np.ndarray, zoom: float) -> np.ndarray:
    middle = (np.array(x.shape[:2]) - 1) / 2
    places = np.indices(x.shape[:2]) - middle[:, None, None]
    return _moved(x, places / zoom - places)


def _clouds(size: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Returns noise in [0, 1], half as strong at half the size."""
    total = np.zeros(size)
    sigma = max(size) / 4
    while sigma > 0.5:
        noise = _blurred(rng.normal(size=(*size, 1)), sigma)[..., 0]
        total += sigma * noise / max(noise.std(), 1e-6)
        sigma /= 2
    return (total - total.min()) / max(np.ptp(total), 1e-6)
