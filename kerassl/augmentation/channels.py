"""Operations for images of any number of channels, and views made of them."""

import dataclasses
import math
from typing import Any, ClassVar

from kerassl.augmentation import checks, color, geometry
from kerassl.augmentation.augmenter import ViewAugmenter
from kerassl.augmentation.namespace import clip
from kerassl.augmentation.operation import Operation, SpatialOperation
from kerassl.augmentation.operations import (
    ColorOperation,
    GaussianBlur,
    RandomHorizontalFlip,
    RandomResizedCrop,
    columns,
    register,
)
from kerassl.value_range import MAX_CHANNELS

# Noise is hashed by cubes modulo this prime. They permute the numbers below it,
# since 3 doesn't divide 1018, and all products stay far below 2**24, so that
# float32 holds them exactly on every backend.
_PRIME = 1019.0


@register
@dataclasses.dataclass(frozen=True)
class RandomVerticalFlip(SpatialOperation):
    """Mirrors some images, top to bottom.

    For images without an upper end, such as those from above or of cells.

    Args:
        probability: float in [0, 1], the share of images.

    Raises:
        ValueError: if `probability` is out of its range.
    """

    probability: float = 0.5

    def __post_init__(self) -> None:
        """Checks the probability."""
        checks.check_between("probability", self.probability, 0, 1)

    def matrices(
        self, xp: Any, uniforms: Any, height: int, width: int
    ) -> tuple[Any, Any]:
        """Returns rows in reverse where images are mirrored, and no columns."""
        flip = xp.cast(uniforms[:, 0] < self.probability, "float32")
        return geometry.flip_matrix(xp, flip, height), None


@register
@dataclasses.dataclass(frozen=True)
class ChannelJitter(ColorOperation):
    """Changes brightness and contrast of each channel by factors of its own.

    Both in random order, clipped to [0, 255] after each. The contrast is about
    the channel's mean. Where `ColorJitter` changes all channels alike, this
    teaches an encoder to ignore how bright channels are relative to each
    other: right for stains and gains, wrong where that ratio is the signal, as
    in vegetation indices.

    Args:
        brightness: float >= 0: the factors are uniform in
            [max(0, 1 - brightness), 1 + brightness].
        contrast: float >= 0, likewise.
        probability: float in [0, 1], the share of images.

    Raises:
        ValueError: if an argument is out of its range.
    """

    brightness: float = 0.4
    contrast: float = 0.4
    probability: float = 0.8

    uniforms: ClassVar = {
        "jitter": 1,
        "order": 2,
        "brightness": MAX_CHANNELS,
        "contrast": MAX_CHANNELS,
    }
    num_uniforms = sum(uniforms.values())

    def __post_init__(self) -> None:
        """Checks the arguments."""
        for name in ("brightness", "contrast"):
            checks.check_strength(name, getattr(self, name))
        checks.check_between("probability", self.probability, 0, 1)

    def recolor(self, xp: Any, x: Any, uniforms: Any, channels: int) -> Any:
        """Maps float32 pixels `(B, C, P)` in [0, 1] to others."""
        u = columns(uniforms, self.uniforms)
        applied = xp.cast(u["jitter"] < self.probability, "float32")
        factors = []
        for name in ("brightness", "contrast"):
            strength = getattr(self, name)
            low = max(0.0, 1.0 - strength)
            drawn = low + (1.0 + strength - low) * u[name][:, :channels]
            factors.append((1.0 + applied * (drawn - 1.0))[:, :, None])
        brightness, contrast = factors
        return color.scale(xp, x, brightness, contrast, u["order"])


@register
@dataclasses.dataclass(frozen=True)
class ChannelDrop(ColorOperation):
    """Sets some channels of each image to 0, but at least one remains.

    So an encoder learns to do with any of them. Of images of one channel
    nothing is dropped.

    Args:
        probability: float in [0, 1], for each channel of each image.

    Raises:
        ValueError: if `probability` is out of its range.
    """

    probability: float = 0.1

    uniforms: ClassVar = {"drop": MAX_CHANNELS}
    num_uniforms = MAX_CHANNELS

    def __post_init__(self) -> None:
        """Checks the probability."""
        checks.check_between("probability", self.probability, 0, 1)

    def recolor(self, xp: Any, x: Any, uniforms: Any, channels: int) -> Any:
        """Maps float32 pixels `(B, C, P)` in [0, 1] to others."""
        drawn = uniforms[:, :channels]
        last = xp.amax(drawn, axis=-1, keepdims=True)
        kept = (drawn >= self.probability) | (drawn >= last)
        return x * xp.cast(kept, "float32")[:, :, None]


@register
@dataclasses.dataclass(frozen=True)
class GaussianNoise(ColorOperation):
    """Adds independent normal noise to each pixel and channel of some images.

    The noise is a function of two random numbers for each image, hashed with
    the position of each value, so that it is the same on every backend. It
    repeats itself after 1019 x 1019 pixels.

    Args:
        probability: float in [0, 1], the share of images.
        sigma: (low, high) standard deviation in levels of [0, 255], drawn
            uniformly for each image.

    Raises:
        ValueError: if an argument is out of its range.
    """

    probability: float = 0.5
    sigma: tuple[float, float] = (2.0, 12.0)

    uniforms: ClassVar = {"noise": 1, "sigma": 1, "seeds": 4}
    num_uniforms = sum(uniforms.values())

    def __post_init__(self) -> None:
        """Checks the arguments."""
        object.__setattr__(self, "sigma", tuple(self.sigma))
        checks.check_between("probability", self.probability, 0, 1)
        checks.check_range("sigma", self.sigma)

    def recolor(self, xp: Any, x: Any, uniforms: Any, channels: int) -> Any:
        """Maps float32 pixels `(B, C, P)` in [0, 1] to others."""
        u = columns(uniforms, self.uniforms)
        low, high = self.sigma
        sigma = low + (high - low) * u["sigma"]
        sigma = sigma * xp.cast(u["noise"] < self.probability, "float32")
        pixels = x.shape[-1]
        noise = _normal(xp, u["seeds"], channels, pixels)
        x = x + (sigma / 255.0)[:, :, None] * noise
        return clip(xp, x, 0.0, 1.0)


def _normal(xp: Any, seeds: Any, channels: int, pixels: int) -> Any:
    """Returns normal numbers `(B, C, P)`, a function of `seeds`, `(B, 4)`."""
    place = xp.cast(xp.arange(pixels), "float32")
    row = xp.floor(place / _PRIME)
    column = place - row * _PRIME
    channel = xp.cast(xp.arange(channels), "float32")[:, None]
    seeds = xp.floor(seeds * _PRIME)[:, :, None, None]

    def uniform(first: Any, second: Any) -> Any:
        x = _cube(xp, first + column)
        for more in (row, channel, second, 1.0, 2.0):
            x = _cube(xp, x + more)
        return (x + 0.5) / _PRIME

    # Box and Muller's way from two uniform numbers to a normal one.
    radius = xp.sqrt(-2.0 * xp.log(uniform(seeds[:, 0], seeds[:, 1])))
    angle = 2.0 * math.pi * uniform(seeds[:, 2], seeds[:, 3])
    return radius * xp.cos(angle)


def _cube(xp: Any, x: Any) -> Any:
    """Returns the cubes of whole numbers modulo the prime, exactly.

    Args:
        xp: namespace of array functions.
        x: float32 tensor of whole numbers >= 0, below 2**22.
    """
    x = _remainder(xp, x)
    return _remainder(xp, _remainder(xp, x * x) * x)


def _remainder(xp: Any, x: Any) -> Any:
    # The half keeps rounded quotients away from whole numbers.
    return x - _PRIME * xp.floor((x + 0.5) / _PRIME)


def any_channels(
    size: int,
    crop_area: tuple[float, float] = (0.2, 1.0),
    flip: float = 0.5,
    vertical_flip: float = 0.0,
    blur: float = 0.0,
    jitter: float = 0.8,
    brightness: float = 0.4,
    contrast: float = 0.4,
    noise: float = 0.5,
    noise_sigma: tuple[float, float] = (2.0, 12.0),
    drop: float = 0.0,
    num_views: int = 2,
    seed: int | None = None,
) -> ViewAugmenter:
    """Returns views for images of any number of channels; not a paper's.

    Crop, flips, blur, `ChannelJitter`, `ChannelDrop` and `GaussianNoise`, in
    this order. `docs/views.md` says which suit which images.

    Args:
        size: int, the views' height and width in pixels.
        crop_area: (low, high), as in `View`.
        flip: float in [0, 1], the probability of a flip, left to right.
        vertical_flip: float in [0, 1], likewise, top to bottom.
        blur: float in [0, 1], the probability of a Gaussian blur.
        jitter: float in [0, 1], the probability of `ChannelJitter`.
        brightness: float >= 0, its strength.
        contrast: float >= 0, likewise.
        noise: float in [0, 1], the probability of `GaussianNoise`.
        noise_sigma: (low, high), its deviation in levels of [0, 255].
        drop: float in [0, 1], the probability that a channel is dropped.
        num_views: int > 0.
        seed: int or `None`.

    Returns:
        A `ViewAugmenter`.

    Example:
    ```python
    # Tiles of a satellite with 6 bands.
    augmenter = any_channels(64, vertical_flip=0.5, drop=0.1)
    ```
    """
    crop = RandomResizedCrop(size, crop_area, interpolation="bicubic")
    random: dict[Operation, float] = {
        RandomHorizontalFlip(flip): flip,
        RandomVerticalFlip(vertical_flip): vertical_flip,
        GaussianBlur(blur): blur,
        ChannelJitter(brightness, contrast, jitter): jitter,
        ChannelDrop(drop): drop,
        GaussianNoise(noise, noise_sigma): noise,
    }
    steps = [crop, *(step for step, share in random.items() if share > 0)]
    return ViewAugmenter(steps, num_views, seed=seed)
