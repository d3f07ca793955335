"""The views of the papers."""

from typing import Any

from kerassl.augmentation.augmenter import ViewAugmenter
from kerassl.augmentation.view import View


def simclr(
    size: int,
    strength: float | None = None,
    blur: float | None = None,
    crop_area: tuple[float, float] = (0.08, 1.0),
    seed: int | None = None,
) -> ViewAugmenter:
    """Returns SimCLR's two views.

    Args:
        size: int, the views' height and width in pixels.
        strength: float >= 0, of the colour jitter. By default 1, and 0.5 up to
            32 pixels, as the paper has it for ImageNet and CIFAR-10.
        blur: float in [0, 1], its probability. By default 0.5, and 0 up to 32
            pixels, likewise.
        crop_area: (low, high), as in `View`.
        seed: int or `None`.

    Returns:
        A `ViewAugmenter`.

    Reference:
        - [Chen et al., 2020](https://arxiv.org/abs/2002.05709), appendices A
          and B.9.
    """
    small = size <= 32
    strength = (0.5 if small else 1.0) if strength is None else strength
    view = View(
        size,
        crop_area=crop_area,
        interpolation="bicubic",
        brightness=0.8 * strength,
        contrast=0.8 * strength,
        saturation=0.8 * strength,
        hue=0.2 * strength,
        blur=(0.0 if small else 0.5) if blur is None else blur,
    )
    return ViewAugmenter([view, view], seed=seed)


def moco_v1(
    size: int,
    crop_area: tuple[float, float] = (0.2, 1.0),
    seed: int | None = None,
) -> ViewAugmenter:
    """Returns the two views of MoCo v1: jitter always, no blur.

    Args:
        size: int, the views' height and width in pixels.
        crop_area: (low, high), as in `View`.
        seed: int or `None`.

    Returns:
        A `ViewAugmenter`.

    Reference:
        - facebookresearch/moco, `main_moco.py`. Its grayscale comes before the
          jitter, ours after: what a grey image keeps of the jitter, brightness
          and contrast, is the same but for clipping.
    """
    view = View(
        size,
        crop_area=crop_area,
        jitter=1.0,
        brightness=0.4,
        contrast=0.4,
        saturation=0.4,
        hue=0.4,
        blur=0.0,
    )
    return ViewAugmenter([view, view], seed=seed)


def moco_v2(
    size: int,
    crop_area: tuple[float, float] = (0.2, 1.0),
    blur: float | None = None,
    seed: int | None = None,
) -> ViewAugmenter:
    """Returns the two views of MoCo v2, also SimSiam's.

    Args:
        size: int, the views' height and width in pixels.
        crop_area: (low, high), as in `View`.
        blur: float in [0, 1], its probability. By default 0.5, and 0 up to 32
            pixels, as SimSiam's paper has it for CIFAR-10.
        seed: int or `None`.

    Returns:
        A `ViewAugmenter`.

    Reference:
        - [Chen et al., 2020, MoCo v2](https://arxiv.org/abs/2003.04297)
    """
    view = View(
        size,
        crop_area=crop_area,
        brightness=0.4,
        contrast=0.4,
        saturation=0.4,
        hue=0.1,
        blur=(0.0 if size <= 32 else 0.5) if blur is None else blur,
    )
    return ViewAugmenter([view, view], seed=seed)


def byol(
    size: int,
    crop_area: tuple[float, float] = (0.08, 1.0),
    blur: tuple[float, float] | None = None,
    solarize: tuple[float, float] = (0.0, 0.2),
    seed: int | None = None,
) -> ViewAugmenter:
    """Returns BYOL's unequal pair, also Barlow Twins' and MoCo v3's.

    The first view is always blurred; the second rarely, and sometimes
    solarized.

    Args:
        size: int, the views' height and width in pixels.
        crop_area: (low, high), as in `View`; MoCo v3 has (0.2, 1).
        blur: its probability in [0, 1] for each view. By default (1, 0.1), and
            (0, 0) up to 32 pixels, where it would leave little to see.
        solarize: its probability in [0, 1] for each view.
        seed: int or `None`.

    Returns:
        A `ViewAugmenter`.

    Reference:
        - [Grill et al., 2020](https://arxiv.org/abs/2006.07733), table 6.
    """
    settings: dict[str, Any] = dict(
        crop_area=crop_area,
        interpolation="bicubic",
        brightness=0.4,
        contrast=0.4,
        saturation=0.2,
        hue=0.1,
    )
    if blur is None:
        blur = (0.0, 0.0) if size <= 32 else (1.0, 0.1)
    return ViewAugmenter(
        [
            View(size, blur=blur[i], solarize=solarize[i], **settings)
            for i in range(2)
        ],
        seed=seed,
    )


def swav(
    size: int = 224,
    small_size: int | None = None,
    small_views: int = 6,
    crop_area: tuple[float, float] = (0.14, 1.0),
    small_crop_area: tuple[float, float] = (0.05, 0.14),
    strength: float | None = None,
    blur: float | None = None,
    seed: int | None = None,
) -> ViewAugmenter:
    """Returns SwAV's multi-crop: two large views, and small ones.

    Args:
        size: int, the large views' height and width in pixels.
        small_size: int, the small views'. By default 3/7 of it, the paper's 96
            to 224, but at least 16.
        small_views: int >= 0, their number.
        crop_area: (low, high) of the large views, as in `View`.
        small_crop_area: (low, high) of the small views.
        strength: float >= 0, of the colour jitter. By default 1, and 0.5 up to
            32 pixels, as SimCLR's.
        blur: float in [0, 1], its probability. By default 0.5, and 0 up to 32
            pixels.
        seed: int or `None`.

    Returns:
        A `ViewAugmenter` of `2 + small_views` views, the large ones first.

    Reference:
        - [Caron et al., 2020](https://arxiv.org/abs/2006.09882)
    """
    small = size <= 32
    strength = (0.5 if small else 1.0) if strength is None else strength
    settings: dict[str, Any] = dict(
        brightness=0.8 * strength,
        contrast=0.8 * strength,
        saturation=0.8 * strength,
        hue=0.2 * strength,
        blur=(0.0 if small else 0.5) if blur is None else blur,
    )
    if small_size is None:
        small_size = max(16, round(size * 3 / 7))
    large_view = View(size, crop_area=crop_area, **settings)
    small_view = View(small_size, crop_area=small_crop_area, **settings)
    return ViewAugmenter(
        [large_view] * 2 + [small_view] * small_views, seed=seed
    )
