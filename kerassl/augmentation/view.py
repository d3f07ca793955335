"""The usual pipeline of the papers, as one set of parameters."""

import dataclasses

from kerassl.augmentation import checks
from kerassl.augmentation.operation import Operation
from kerassl.augmentation.operations import (
    ColorJitter,
    GaussianBlur,
    RandomGrayscale,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Solarize,
)


@dataclasses.dataclass(frozen=True)
class View:
    """The usual pipeline: a short form of a list of operations.

    The order is: resized crop, flip, blur, color jitter (in random order),
    grayscale, solarize. Operations that a probability of 0 switches off are
    left out. The defaults are SimCLR's for ImageNet.

    Args:
        size: int > 0. Height and width of the view, in pixels.
        crop_area: (low, high) share of the image's area that a crop covers,
            0 < low <= high <= 1.
        crop_ratio: (low, high) width over height of a crop, drawn
            log-uniformly.
        interpolation: `"bilinear"` or `"bicubic"`, both with antialiasing.
        flip: float in [0, 1], the probability of a horizontal flip.
        jitter: float in [0, 1], the probability of any color jitter.
        brightness: float >= 0: the factor is uniform in
            [max(0, 1 - brightness), 1 + brightness].
        contrast: float >= 0, a factor likewise.
        saturation: float >= 0, a factor likewise.
        hue: float in [0, 0.5], the largest shift, in turns of the color wheel.
        grayscale: float in [0, 1], the probability of losing all color.
        blur: float in [0, 1], the probability of a Gaussian blur.
        blur_sigma: (low, high) its standard deviation, in pixels of the view.
        solarize: float in [0, 1], the probability of inverting bright pixels.
        solarize_threshold: float in [0, 1], a share of 255: pixels from there
            on are inverted.

    Raises:
        ValueError: if a parameter is out of its range.

    Example:
    ```python
    augmenter = ViewAugmenter(View(32, blur=0.0))
    longer = ViewAugmenter([*View(32).operations(), MyOperation()])
    ```
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

    def __post_init__(self) -> None:
        """Checks the ranges, and makes tuples of lists (JSON has no tuples)."""
        for name in ("crop_area", "crop_ratio", "blur_sigma"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        checks.check_size("size", self.size)
        checks.check_range("crop_area", self.crop_area, 1)
        checks.check_range("crop_ratio", self.crop_ratio)
        checks.check_range("blur_sigma", self.blur_sigma)
        checks.check_interpolation(self.interpolation)
        for name in ("brightness", "contrast", "saturation"):
            checks.check_strength(name, getattr(self, name))
        checks.check_between("hue", self.hue, 0, 0.5)
        for name in (
            "flip",
            "jitter",
            "grayscale",
            "blur",
            "solarize",
            "solarize_threshold",
        ):
            checks.check_between(name, getattr(self, name), 0, 1)

    def operations(self) -> list[Operation]:
        """Returns the operations, in the order in which they are applied."""
        crop = RandomResizedCrop(
            self.size, self.crop_area, self.crop_ratio, self.interpolation
        )
        jitter = ColorJitter(
            self.brightness,
            self.contrast,
            self.saturation,
            self.hue,
            self.jitter,
        )
        random = {
            RandomHorizontalFlip(self.flip): self.flip,
            GaussianBlur(self.blur, self.blur_sigma): self.blur,
            jitter: self.jitter,
            RandomGrayscale(self.grayscale): self.grayscale,
            Solarize(self.solarize, self.solarize_threshold): self.solarize,
        }
        return [crop, *(step for step, share in random.items() if share > 0)]
