"""The operations of the papers."""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any, ClassVar

import keras

from kerassl.augmentation import checks, color, geometry
from kerassl.augmentation.operation import Operation, SpatialOperation

register = keras.saving.register_keras_serializable(package="kerassl")


def columns(uniforms: Any, widths: Mapping[str, int]) -> dict[str, Any]:
    """Splits uniform numbers `(B, N)` into columns with names."""
    edges = list(itertools.accumulate(widths.values(), initial=0))
    return {
        name: uniforms[:, first:last]
        for name, first, last in zip(widths, edges, edges[1:])
    }


def _chosen(xp: Any, uniform: Any, probability: float) -> Any:
    """Returns float32 0 or 1 per image, `(B,)`."""
    return xp.cast(uniform < probability, "float32")


def _freeze(operation: Operation, *names: str) -> None:
    """Makes tuples of pairs, so that operations compare and hash."""
    for name in names:
        value = tuple(getattr(operation, name))
        object.__setattr__(operation, name, value)


class BoxOperation(SpatialOperation):
    """Resizes a box of each image to a square. Can be fused with a flip."""

    size: int
    interpolation: str = "bilinear"

    def box(
        self, xp: Any, uniforms: Any, height: int, width: int
    ) -> tuple[Any, Any, Any, Any]:
        """Returns top, left, box height and width, `(B,)` or `(1,)`."""
        raise NotImplementedError

    def matrices(
        self,
        xp: Any,
        uniforms: Any,
        height: int,
        width: int,
        flip: Any = None,
    ) -> tuple[Any, Any]:
        """Returns the weights; `flip`, 0 or 1 per image, reverses columns."""
        top, left, box_height, box_width = self.box(xp, uniforms, height, width)
        kind = self.interpolation
        same = flip is None or flip.shape[0] == top.shape[0]
        if height == width and same:
            # Both at once: columns after rows.
            if flip is not None:
                flip = xp.concatenate([xp.zeros_like(flip), flip], axis=0)
            made = geometry.resize_matrix(
                xp,
                xp.concatenate([top, left], axis=0),
                xp.concatenate([box_height, box_width], axis=0),
                flip,
                self.size,
                height,
                kind,
            )
            made = xp.reshape(made, (2, -1, self.size, height))
            return made[0], made[1]
        return (
            geometry.resize_matrix(
                xp, top, box_height, None, self.size, height, kind
            ),
            geometry.resize_matrix(
                xp, left, box_width, flip, self.size, width, kind
            ),
        )


@register
@dataclasses.dataclass(frozen=True)
class RandomResizedCrop(BoxOperation):
    """Resizes a random box of each image to a square, with antialiasing.

    Args:
        size: int > 0, the height and width of the output in pixels.
        area: (low, high) share of the image's area that the box covers,
            0 < low <= high <= 1.
        ratio: (low, high) width over height of the box, drawn log-uniformly.
        interpolation: `"bilinear"` or `"bicubic"`.

    Raises:
        ValueError: if an argument is out of its range.
    """

    size: int
    area: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: str = "bilinear"

    uniforms: ClassVar = {
        "area": geometry.CANDIDATES,
        "ratio": geometry.CANDIDATES,
        "top": 1,
        "left": 1,
    }
    num_uniforms = sum(uniforms.values())

    def __post_init__(self) -> None:
        """Checks the arguments."""
        _freeze(self, "area", "ratio")
        checks.check_size("size", self.size)
        checks.check_range("area", self.area, 1)
        checks.check_range("ratio", self.ratio)
        checks.check_interpolation(self.interpolation)

    def box(
        self, xp: Any, uniforms: Any, height: int, width: int
    ) -> tuple[Any, Any, Any, Any]:
        """Draws the boxes."""
        u = columns(uniforms, self.uniforms)
        return geometry.draw_box(xp, u, height, width, self.area, self.ratio)


@register
@dataclasses.dataclass(frozen=True)
class Resize(BoxOperation):
    """Resizes whole images to a square, with antialiasing.

    Args:
        size: int > 0, the height and width of the output in pixels.
        interpolation: `"bilinear"` or `"bicubic"`.

    Raises:
        ValueError: if an argument is out of its range.
    """

    size: int
    interpolation: str = "bilinear"

    num_uniforms = 0

    def __post_init__(self) -> None:
        """Checks the arguments."""
        checks.check_size("size", self.size)
        checks.check_interpolation(self.interpolation)

    def box(
        self, xp: Any, uniforms: Any, height: int, width: int
    ) -> tuple[Any, Any, Any, Any]:
        """Returns the whole image."""
        zero = xp.zeros((1,), "float32")
        return zero, zero, zero + float(height), zero + float(width)


@register
@dataclasses.dataclass(frozen=True)
class CenterCrop(BoxOperation):
    """Cuts the central square out of images.

    Args:
        size: int > 0, its height and width in pixels. Smaller images raise a
            `ValueError`.

    Raises:
        ValueError: if `size` is not positive.
    """

    size: int

    num_uniforms = 0

    def __post_init__(self) -> None:
        """Checks the size."""
        checks.check_size("size", self.size)

    def box(
        self, xp: Any, uniforms: Any, height: int, width: int
    ) -> tuple[Any, Any, Any, Any]:
        """Returns the central box."""
        if min(height, width) < self.size:
            raise ValueError(
                f"CenterCrop({self.size}) needs images of at least that size. "
                f"Received images of {height}x{width} pixels."
            )
        zero = xp.zeros((1,), "float32")
        side = zero + float(self.size)
        top, left = ((n - self.size) // 2 for n in (height, width))
        return zero + float(top), zero + float(left), side, side


@register
@dataclasses.dataclass(frozen=True)
class RandomHorizontalFlip(SpatialOperation):
    """Mirrors some images, left to right.

    Args:
        probability: float in [0, 1], the share of images.

    Raises:
        ValueError: if `probability` is out of its range.
    """

    probability: float = 0.5

    uniforms: ClassVar = {"flip": 1}

    def __post_init__(self) -> None:
        """Checks the probability."""
        checks.check_between("probability", self.probability, 0, 1)

    def flipped(self, xp: Any, uniforms: Any) -> Any:
        """Returns 1 for the images to mirror and 0 for others, `(B,)`."""
        return _chosen(xp, uniforms[:, 0], self.probability)

    def matrices(
        self, xp: Any, uniforms: Any, height: int, width: int
    ) -> tuple[Any, Any]:
        """Returns no rows, and columns in reverse where images are mirrored."""
        flip = self.flipped(xp, uniforms)
        return None, geometry.flip_matrix(xp, flip, width)


@register
@dataclasses.dataclass(frozen=True)
class GaussianBlur(SpatialOperation):
    """Blurs some images.

    At the edges, the weights of pixels inside the image are renormalized.

    Args:
        probability: float in [0, 1], the share of images.
        sigma: (low, high) standard deviation in pixels, drawn uniformly.

    Raises:
        ValueError: if an argument is out of its range.
    """

    probability: float = 0.5
    sigma: tuple[float, float] = (0.1, 2.0)

    uniforms: ClassVar = {"blur": 1, "sigma": 1}
    num_uniforms = 2

    def __post_init__(self) -> None:
        """Checks the arguments."""
        _freeze(self, "sigma")
        checks.check_between("probability", self.probability, 0, 1)
        checks.check_range("sigma", self.sigma)

    def matrices(
        self, xp: Any, uniforms: Any, height: int, width: int
    ) -> tuple[Any, Any]:
        """Returns the same blur for both axes."""
        low, high = self.sigma
        blurred = _chosen(xp, uniforms[:, 0], self.probability)
        sigma = low + (high - low) * uniforms[:, 1]
        rows = geometry.blur_matrix(xp, sigma, blurred, height)
        if height == width:
            return rows, rows
        return rows, geometry.blur_matrix(xp, sigma, blurred, width)


class ColorOperation(Operation):
    """An operation on pixels in [0, 1], channels first.

    Adjacent ones run one after the other without changing this layout.
    """

    def recolor(self, xp: Any, x: Any, uniforms: Any, channels: int) -> Any:
        """Maps float32 pixels `(B, C, P)` in [0, 1] to others."""
        raise NotImplementedError

    def apply(self, xp: Any, images: Any, uniforms: Any) -> Any:
        """Maps images `(B, H, W, C)`."""
        _, height, width, channels = images.shape
        x = geometry.to_planes(xp, images * (1 / 255))
        x = self.recolor(xp, x, uniforms, channels)
        return geometry.to_images(xp, x, height, width, channels) * 255.0


@register
@dataclasses.dataclass(frozen=True)
class ColorJitter(ColorOperation):
    """Changes brightness, contrast, saturation and hue, in random order.

    Saturation and hue are those of RGB images. In images of another number of
    channels only brightness and contrast change, by the same factors in all
    channels, the contrast about the mean of each.

    Args:
        brightness: float >= 0: the factor is uniform in
            [max(0, 1 - brightness), 1 + brightness].
        contrast: float >= 0, likewise.
        saturation: float >= 0, likewise.
        hue: float in [0, 0.5], the largest shift, in turns of the color wheel.
        probability: float in [0, 1], the share of images.

    Raises:
        ValueError: if an argument is out of its range.
    """

    brightness: float = 0.8
    contrast: float = 0.8
    saturation: float = 0.8
    hue: float = 0.2
    probability: float = 0.8

    uniforms: ClassVar = {
        "jitter": 1,
        "order": 4,
        "brightness": 1,
        "contrast": 1,
        "saturation": 1,
        "hue": 1,
    }
    num_uniforms = sum(uniforms.values())

    def __post_init__(self) -> None:
        """Checks the arguments."""
        for name in ("brightness", "contrast", "saturation"):
            checks.check_strength(name, getattr(self, name))
        checks.check_between("hue", self.hue, 0, 0.5)
        checks.check_between("probability", self.probability, 0, 1)

    def recolor(self, xp: Any, x: Any, uniforms: Any, channels: int) -> Any:
        """Maps float32 pixels `(B, C, P)` in [0, 1] to others."""
        u = columns(uniforms, self.uniforms)
        applied = _chosen(xp, u["jitter"], self.probability)
        strengths = {
            "brightness": self.brightness,
            "contrast": self.contrast,
            "saturation": self.saturation,
            "hue": self.hue,
        }
        return color.jitter(xp, x, u, applied, strengths, channels)


@register
@dataclasses.dataclass(frozen=True)
class RandomGrayscale(ColorOperation):
    """Takes the color of some RGB images; they keep three channels.

    Images of another number of channels have no color, and stay as they are.

    Args:
        probability: float in [0, 1], the share of images.

    Raises:
        ValueError: if `probability` is out of its range.
    """

    probability: float = 0.2

    uniforms: ClassVar = {"grayscale": 1}

    def __post_init__(self) -> None:
        """Checks the probability."""
        checks.check_between("probability", self.probability, 0, 1)

    def recolor(self, xp: Any, x: Any, uniforms: Any, channels: int) -> Any:
        """Maps float32 pixels `(B, C, P)` in [0, 1] to others."""
        if channels != 3:
            return x
        return color.grayscale(xp, x, uniforms, self.probability)


@register
@dataclasses.dataclass(frozen=True)
class Solarize(ColorOperation):
    """Inverts the bright pixels of some images.

    Args:
        probability: float in [0, 1], the share of images.
        threshold: float in [0, 1], a share of 255: pixels from there on are
            inverted.

    Raises:
        ValueError: if an argument is out of its range.
    """

    probability: float = 0.2
    threshold: float = 0.5

    uniforms: ClassVar = {"solarize": 1}

    def __post_init__(self) -> None:
        """Checks the arguments."""
        checks.check_between("probability", self.probability, 0, 1)
        checks.check_between("threshold", self.threshold, 0, 1)

    def recolor(self, xp: Any, x: Any, uniforms: Any, channels: int) -> Any:
        """Maps float32 pixels `(B, C, P)` in [0, 1] to others."""
        return color.solarize(xp, x, uniforms, self.probability, self.threshold)
