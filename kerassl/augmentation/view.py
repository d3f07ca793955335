"""The parameters of one random view of an image."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class View:
    """What may happen to an image on its way to one view.

    The operations happen in this order: resized crop, flip, blur, color jitter
    (in random order), grayscale, solarize. All parameters are drawn for each
    image and each call anew. The defaults are SimCLR's for ImageNet.

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
        grayscale: float in [0, 1], the probability of no color.
        blur: float in [0, 1], the probability of a Gaussian blur.
        blur_sigma: (low, high) its standard deviation, in pixels of the view.
        solarize: float in [0, 1], the probability of inverting bright pixels.
        solarize_threshold: float in [0, 1]: pixels from here on are inverted.

    Raises:
        ValueError: if a parameter is out of its range.
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
        """Checks the ranges; tuples that became lists in JSON come back."""
        for name in ("crop_area", "crop_ratio", "blur_sigma"):
            low, high = getattr(self, name)
            object.__setattr__(self, name, (low, high))
            if not 0 < low <= high:
                self._refuse(name, "(low, high) with 0 < low <= high")
        if self.size < 1:
            self._refuse("size", "a positive number of pixels")
        if self.crop_area[1] > 1:
            self._refuse("crop_area", "at most the whole image, 1")
        if self.interpolation not in ("bilinear", "bicubic"):
            self._refuse("interpolation", "'bilinear' or 'bicubic'")
        for name in ("brightness", "contrast", "saturation"):
            if getattr(self, name) < 0:
                self._refuse(name, "at least 0")
        if not 0 <= self.hue <= 0.5:
            self._refuse("hue", "in [0, 0.5]")
        for name in (
            "flip",
            "jitter",
            "grayscale",
            "blur",
            "solarize",
            "solarize_threshold",
        ):
            if not 0 <= getattr(self, name) <= 1:
                self._refuse(name, "in [0, 1]")

    def _refuse(self, name: str, needed: str) -> None:
        raise ValueError(
            f"`{name}` must be {needed}. Received: {getattr(self, name)!r}"
        )
