"""The views of the papers.

Their operations are those of `View`, in its order: the blur comes before the
colors, where the papers have it after them.
"""

from typing import Any

from kerassl.augmentation.augmenter import ViewAugmenter
from kerassl.augmentation.tiles import TileAugmenter
from kerassl.augmentation.view import View


def simclr(
    size: int,
    strength: float | None = None,
    blur: float | None = None,
    crop_area: tuple[float, float] = (0.08, 1.0),
    num_views: int = 2,
    seed: int | None = None,
) -> ViewAugmenter:
    """Returns SimCLR's views.

    Args:
        size: int, the views' height and width in pixels.
        strength: float >= 0, of the color jitter. By default 1, and 0.5 up to
            32 pixels: the paper's values for ImageNet and CIFAR-10.
        blur: float in [0, 1], its probability. By default 0.5, and 0 up to 32
            pixels, as in the paper.
        crop_area: (low, high), as in `View`.
        num_views: int > 0.
        seed: int or `None`.

    Returns:
        A `ViewAugmenter`.

    Reference:
        - [Chen et al., 2020](https://arxiv.org/abs/2002.05709), appendices A
          and B.9.
    """
    view = View(
        size,
        crop_area=crop_area,
        interpolation="bicubic",
        **simclr_colors(size, strength, blur),
    )
    return ViewAugmenter(view, num_views, seed=seed)


def simclr_colors(
    size: int, strength: float | None, blur: float | None
) -> dict[str, Any]:
    """Returns the arguments of `View` for SimCLR's jitter and blur."""
    small = size <= 32
    strength = (0.5 if small else 1.0) if strength is None else strength
    return {
        "brightness": 0.8 * strength,
        "contrast": 0.8 * strength,
        "saturation": 0.8 * strength,
        "hue": 0.2 * strength,
        "blur": (0.0 if small else 0.5) if blur is None else blur,
    }


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
          jitter, ours after it. The results differ only by clipping, as
          brightness and contrast are all that jitter changes in a gray image.
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
    num_views: int = 2,
    seed: int | None = None,
) -> ViewAugmenter:
    """Returns the views of MoCo v2 and SimSiam.

    Args:
        size: int, the views' height and width in pixels.
        crop_area: (low, high), as in `View`.
        blur: float in [0, 1], its probability. By default 0.5, and 0 up to 32
            pixels, as in SimSiam's paper for CIFAR-10.
        num_views: int > 0.
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
    return ViewAugmenter(view, num_views, seed=seed)


def byol(
    size: int,
    crop_area: tuple[float, float] = (0.08, 1.0),
    blur: tuple[float, float] | None = None,
    solarize: tuple[float, float] = (0.0, 0.2),
    seed: int | None = None,
) -> ViewAugmenter:
    """Returns the unequal pair of BYOL, NNCLR, VICReg and their kin.

    Above 32 pixels the first view is always blurred and the second rarely; the
    second is sometimes solarized. Barlow Twins and MoCo v3 have these views,
    too.

    Args:
        size: int, the views' height and width in pixels.
        crop_area: (low, high), as in `View`; (0.2, 1) for MoCo v3.
        blur: (first, second) probability in [0, 1] for the two views. By
            default (1, 0.1), and (0, 0) up to 32 pixels, where a blur leaves
            little to see.
        solarize: (first, second) probability in [0, 1].
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


def crop_flip(
    size: int,
    crop_area: tuple[float, float] = (0.2, 1.0),
    seed: int | None = None,
) -> ViewAugmenter:
    """Returns one view, cropped and flipped, as for MAE and rotation.

    Args:
        size: int, the view's height and width in pixels.
        crop_area: (low, high), as in `View`. The default is MAE's.
        seed: int or `None`.

    Returns:
        A `ViewAugmenter`.

    Reference:
        - [He et al., 2021](https://arxiv.org/abs/2111.06377)
    """
    return ViewAugmenter([_crop_flip(size, crop_area)], seed=seed)


def _crop_flip(
    size: int, crop_area: tuple[float, float], **kwargs: Any
) -> View:
    settings: dict[str, Any] = dict(jitter=0.0, grayscale=0.0, blur=0.0)
    settings |= dict(interpolation="bicubic", crop_area=crop_area)
    return View(size, **(settings | kwargs))


def jigsaw(
    size: int = 255,
    view_size: int | None = None,
    tile_size: int | None = None,
    crop_area: tuple[float, float] = (0.5, 1.0),
    flip: float = 0.0,
    channel_shift: int | None = None,
    grayscale: float = 0.5,
    project_colors: float = 0.5,
    normalize: bool = True,
    seed: int | None = None,
) -> TileAugmenter:
    """Returns the nine tiles of the jigsaw puzzle.

    Each has a random position in its cell, a ninth of the view.

    Args:
        size: int, the encoder's image size in pixels.
        view_size: int, the size of the view that is cut. By default `size`.
        tile_size: int. By default three quarters of a cell, as in the paper (64
            of 85).
        crop_area: (low, high), as in `View`.
        flip: float in [0, 1], the probability of a flip. The authors don't
            flip.
        channel_shift: int, as in `TileAugmenter`. By default 2 from 128 pixels
            on, as in the authors' code, and 0 below.
        grayscale: float in [0, 1], its probability.
        project_colors: float in [0, 1], a probability, as in `TileAugmenter`.
        normalize: bool. Whether all tiles get the same mean and contrast, as in
            the paper; in the authors' code this is commented out.
        seed: int or `None`.

    Returns:
        A `TileAugmenter`.

    Reference:
        - [Noroozi and Favaro, 2016](https://arxiv.org/abs/1603.09246)
    """
    view_size = view_size or size
    cell = view_size // 3
    tile_size = tile_size or (cell * 3 + 3) // 4
    if channel_shift is None:
        channel_shift = 2 if view_size >= 128 else 0
    view = _crop_flip(view_size, crop_area, flip=flip, grayscale=grayscale)
    return TileAugmenter(
        view,
        tile_size,
        gap=max(0, cell - tile_size),
        jitter=max(0, cell - tile_size - channel_shift),
        channel_shift=channel_shift,
        project_colors=project_colors,
        normalize=normalize,
        seed=seed,
    )


def context_prediction(
    size: int = 384,
    view_size: int | None = None,
    tile_size: int | None = None,
    gap: int | None = None,
    jitter: int | None = None,
    crop_area: tuple[float, float] = (0.5, 1.0),
    flip: float = 0.0,
    drop_channels: float = 1.0,
    project_colors: float = 0.0,
    blur: float = 0.33,
    normalize: bool = True,
    seed: int | None = None,
) -> TileAugmenter:
    """Returns a grid of nine patches that don't touch.

    Args:
        size: int, the encoder's image size in pixels.
        view_size: int, the size of the view that is cut. By default `size`.
        tile_size: int, a patch's size. By default a quarter of the view, as in
            the paper (96).
        gap: int, pixels between patches. By default what the jitter leaves, but
            at most half a patch (the paper's 48 pixels).
        jitter: int, as in `TileAugmenter`. By default a seventh of a patch, as
            in the paper (7 pixels in each direction).
        crop_area: (low, high), as in `View`.
        flip: float in [0, 1], the probability of a flip.
        drop_channels: float in [0, 1], as in `TileAugmenter`: the authors'
            defense against chromatic aberration.
        project_colors: float in [0, 1], as in `TileAugmenter`: the paper's
            other defense.
        blur: float in [0, 1]: with this probability an image loses fine detail,
            down to a tenth of the patch's resolution.
        normalize: bool. Whether all patches get the same mean and contrast, as
            in the authors' code.
        seed: int or `None`.

    Returns:
        A `TileAugmenter`.

    Reference:
        - [Doersch et al., 2015](https://arxiv.org/abs/1505.05192)
    """
    view_size = view_size or size
    tile_size = tile_size or view_size // 4
    jitter = max(1, tile_size * 7 // 48) if jitter is None else jitter
    if gap is None:
        room = (view_size - 3 * tile_size - jitter) // 2
        gap = max(0, min(tile_size // 2, room))
    view = _crop_flip(
        view_size,
        crop_area,
        flip=flip,
        blur=blur,
        blur_sigma=(0.1, max(0.2, 0.04 * tile_size)),
    )
    return TileAugmenter(
        view,
        tile_size,
        gap=gap,
        jitter=jitter,
        drop_channels=drop_channels,
        project_colors=project_colors,
        normalize=normalize,
        seed=seed,
    )
