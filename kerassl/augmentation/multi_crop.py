"""Views of several sizes: two large crops of an image and small ones."""

from typing import Any

from kerassl.augmentation.augmenter import ViewAugmenter
from kerassl.augmentation.papers import simclr_colors
from kerassl.augmentation.view import View


def local_size_of(size: int, patch_size: int = 1) -> int:
    """Returns the usual size of small views: 3/7, as 96 to 224, or 16.

    Args:
        size: int, of the large views.
        patch_size: int, to a multiple of which the result is rounded.
    """
    return patch_size * max(1, round(max(16, size * 3 / 7) / patch_size))


def swav(
    size: int = 224,
    local_size: int | None = None,
    num_local_crops: int = 6,
    crop_area: tuple[float, float] = (0.14, 1.0),
    local_crop_area: tuple[float, float] = (0.05, 0.14),
    strength: float | None = None,
    blur: float | None = None,
    seed: int | None = None,
) -> ViewAugmenter:
    """Returns SwAV's multi-crop: two large views and several small ones.

    Args:
        size: int, the large views' height and width in pixels.
        local_size: int, the small views' height and width. By default 3/7 of
            `size`, as the paper's 96 to 224, but at least 16. Methods round it
            to whole patches of their encoder.
        num_local_crops: int >= 0, the number of small views.
        crop_area: (low, high) for the large views, as in `View`.
        local_crop_area: (low, high) for the small views.
        strength: float >= 0, of the color jitter. By default 1, and 0.5 up to
            32 pixels, as in `simclr`.
        blur: float in [0, 1], its probability. By default 0.5, and 0 up to 32
            pixels.
        seed: int or `None`.

    Returns:
        A `ViewAugmenter` of `2 + num_local_crops` views, the large ones first.

    Reference:
        - [Caron et al., 2020](https://arxiv.org/abs/2006.09882)
    """
    settings = simclr_colors(size, strength, blur)
    if local_size is None:
        local_size = local_size_of(size)
    large_view = View(size, crop_area=crop_area, **settings)
    small_view = View(local_size, crop_area=local_crop_area, **settings)
    return ViewAugmenter(
        [large_view] * 2 + [small_view] * num_local_crops, seed=seed
    )


def dino(
    size: int = 224,
    local_size: int | None = None,
    num_local_crops: int = 8,
    crop_area: tuple[float, float] = (0.4, 1.0),
    local_crop_area: tuple[float, float] = (0.05, 0.4),
    blur: tuple[float, float, float] | None = None,
    solarize: tuple[float, float, float] = (0.0, 0.2, 0.0),
    seed: int | None = None,
) -> ViewAugmenter:
    """Returns DINO's multi-crop: two unequal large views and small ones.

    The defaults are for ViTs. For ResNets the areas are (0.14, 1) and
    (0.05, 0.14); without small views the large ones start at 0.14, too. iBOT
    has 10 small views and areas of (0.25, 1) and (0.05, 0.25), DINOv2 8 views
    and (0.32, 1) and (0.05, 0.32).

    Args:
        size: int, the large views' height and width in pixels.
        local_size: int, the small views' height and width. By default 3/7 of
            `size`, as the paper's 96 to 224, but at least 16. Methods round it
            to whole patches of their encoder.
        num_local_crops: int >= 0, the number of small views.
        crop_area: (low, high) for the large views, as in `View`.
        local_crop_area: (low, high) for the small views.
        blur: (first, second, small) probability in [0, 1]. By default
            (1, 0.1, 0.5), and 0 up to 32 pixels, as in `byol`.
        solarize: (first, second, small) probability in [0, 1].
        seed: int or `None`.

    Returns:
        A `ViewAugmenter` of `2 + num_local_crops` views, the large ones first.

    Reference:
        - [Caron et al., 2021](https://arxiv.org/abs/2104.14294)
        - facebookresearch/dino, `main_dino.py`
    """
    if blur is None:
        blur = (0.0, 0.0, 0.0) if size <= 32 else (1.0, 0.1, 0.5)
    settings: dict[str, Any] = dict(
        interpolation="bicubic",
        brightness=0.4,
        contrast=0.4,
        saturation=0.2,
        hue=0.1,
    )
    sizes = (size, size, local_size or local_size_of(size))
    areas = (crop_area, crop_area, local_crop_area)
    first, second, small = (
        View(
            sizes[i],
            crop_area=areas[i],
            blur=blur[i],
            solarize=solarize[i],
            **settings,
        )
        for i in range(3)
    )
    return ViewAugmenter([first, second] + [small] * num_local_crops, seed=seed)
