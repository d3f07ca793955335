"""Tiles of an image, for methods that predict their arrangement."""

from collections.abc import Callable, Sequence
from typing import Any

import keras

from kerassl.augmentation.augmenter import (
    Operations,
    ViewAugmenter,
    config_of,
    from_config_of,
    operations_of,
)
from kerassl.augmentation.checks import check_between
from kerassl.augmentation.namespace import array, one_hot
from kerassl.renamed import current_names

# Chromatic aberration shifts green against red and blue, and more so far from
# the lens's axis; without that direction of color it can't be seen.
GREEN_MAGENTA = (-1.0, 2.0, -1.0)


@keras.saving.register_keras_serializable(package="kerassl")
class TileAugmenter(ViewAugmenter):
    """Cuts a grid of tiles out of one random view of each image.

    Tiles are `tile_size + gap` pixels apart. Each is shifted by up to `jitter`
    pixels, and the whole grid has a random position in the view. Cutting is a
    matmul with ones and zeros, exact and without a gather.

    Networks find shortcuts: edges that continue from tile to tile (`gap` and
    `jitter` prevent that), and color fringes that reveal where in the image a
    tile comes from (`channel_shift`, `drop_channels`, `project_colors`).

    Args:
        view: `View` or list of operations that set a size: the pipeline of the
            view that is cut.
        tile_size: int > 0, in pixels.
        grid: int > 1: `grid * grid` tiles.
        gap: int >= 0, pixels between neighbors before they are shifted.
        jitter: int >= 0. Each tile is shifted by 0 to this many pixels down,
            and to the right.
        channel_shift: int >= 0. Each channel of a tile is shifted by 0 to this
            many pixels in addition.
        drop_channels: float in [0, 1], the probability that an image's tiles
            keep one random channel each, and the others become gray.
        project_colors: float in [0, 1], the probability that an image loses
            the direction of color from green to magenta.
        normalize: bool. Whether to give each tile the mean 127.5 and the
            standard deviation 50.
        seed: int or `None`.
        **kwargs: the arguments of `keras.layers.Layer`.

    Output: `{"tiles": (B, grid * grid, tile_size, tile_size, C)}`, row by row,
    in [0, 255] (with `normalize`, a few pixels may be outside).

    Raises:
        ValueError: if the grid doesn't fit into the view, the view sets no
            size, or an argument is out of its range.
        TypeError: if `view` isn't a pipeline.

    Example:
    ```python
    augmenter = TileAugmenter(View(32, blur=0.0), tile_size=8, gap=2, jitter=2)
    tiles = augmenter(images)["tiles"]                  # (B, 9, 8, 8, C)
    ```

    Reference:
        - [Doersch et al., 2015](https://arxiv.org/abs/1505.05192)
        - [Noroozi and Favaro, 2016](https://arxiv.org/abs/1603.09246)
    """

    def __init__(
        self,
        view: Operations,
        tile_size: int,
        grid: int = 3,
        gap: int = 0,
        jitter: int = 0,
        channel_shift: int = 0,
        drop_channels: float = 0.0,
        project_colors: float = 0.0,
        normalize: bool = False,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(
            {"view_1": operations_of(view, "view")}, seed=seed, **kwargs
        )
        if tile_size < 1 or grid < 2 or min(gap, jitter, channel_shift) < 0:
            raise ValueError(
                "`tile_size` must be positive, `grid` at least 2, and `gap`, "
                "`jitter` and `channel_shift` not negative. Received: "
                f"tile_size={tile_size}, grid={grid}, gap={gap}, "
                f"jitter={jitter}, channel_shift={channel_shift}"
            )
        check_between("drop_channels", drop_channels, 0, 1)
        check_between("project_colors", project_colors, 0, 1)
        self.view = self.views["view_1"]
        self.tile_size = tile_size
        self.grid = grid
        self.gap = gap
        self.jitter = jitter
        self.channel_shift = channel_shift
        self.drop_channels = drop_channels
        self.project_colors = project_colors
        self.normalize = normalize
        used = (grid - 1) * (tile_size + gap) + tile_size
        used += jitter + channel_shift
        size = self.sizes["view_1"]
        if size is None:
            raise ValueError(
                "`view` must set a size, with an operation such as "
                f"`RandomResizedCrop`. Received: {view!r}"
            )
        self.room = size - used
        if self.room < 0:
            raise ValueError(
                f"{grid}x{grid} tiles of {tile_size} pixels with gap={gap}, "
                f"jitter={jitter} and channel_shift={channel_shift} take "
                f"{used} pixels. The view has {size}."
            )

    @property
    def num_uniforms(self) -> int:
        """How many random numbers an image needs, with three channels."""
        tiles = self.grid**2
        along_an_axis = 1 + tiles + (3 * tiles if self.channel_shift else 0)
        colors = 2 + tiles
        return super().num_uniforms + 2 * along_an_axis + colors

    @property
    def view_names(self) -> list[str]:
        """The name of the output, `["tiles"]`."""
        return ["tiles"]

    def finish(
        self, xp: Any, views: dict[str, Any], draw: Callable
    ) -> dict[str, Any]:
        """Cuts the tiles, and removes clues to their position."""
        (image,) = views.values()
        count, channels = xp.shape(image)[0], image.shape[-1]
        tiles = self.grid**2

        def whole(numbers: int, largest: int) -> Any:
            # The minimum is needed where the product rounds up.
            drawn = xp.floor(draw(count, numbers) * (largest + 1.0))
            return xp.minimum(drawn, array(xp, largest, drawn))

        if self.project_colors and channels == 3:
            chosen = xp.cast(draw(count, 1) < self.project_colors, "float32")
            image = project_colors(xp, image, chosen[:, :, None, None])
        starts = []
        for axis in range(2):
            cell = xp.cast(xp.arange(tiles), "float32")
            cell = xp.floor(cell / self.grid) if axis == 0 else cell % self.grid
            start = cell * (self.tile_size + self.gap) + whole(1, self.room)
            start = (start + whole(tiles, self.jitter))[:, :, None]
            if self.channel_shift:
                # Of more than three channels, every third one shares a shift.
                own = min(channels, 3)
                shift = whole(tiles * own, self.channel_shift)
                shift = xp.reshape(shift, (-1, tiles, own))
                shift = xp.concatenate([shift] * -(-channels // own), axis=-1)
                start = start + shift[..., :channels]
            starts.append(start)
        tops, lefts = starts
        made = cut(xp, image, tops, lefts, self.tile_size)
        if self.drop_channels and channels == 3:
            chosen = xp.cast(draw(count, 1) < self.drop_channels, "float32")
            kept = one_hot(xp, whole(tiles, 2), 3)
            made = drop_channels(
                xp,
                made,
                xp.reshape(kept, (-1, tiles, 1, 1, 3)),
                xp.reshape(chosen, (-1, 1, 1, 1, 1)),
            )
        if self.normalize:
            made = normalize(xp, made)
        return {"tiles": made}

    def compute_output_shape(self, input_shape: Sequence) -> dict[str, tuple]:
        """Returns the shape of the tiles."""
        *batch, _, _, channels = input_shape
        size = self.tile_size
        return {"tiles": (*batch, self.grid**2, size, size, channels)}

    def get_config(self) -> dict:
        """Returns the arguments of the constructor."""
        config = super().get_config()
        del config["views"]
        return {
            **config,
            "view": config_of(self.view),
            "tile_size": self.tile_size,
            "grid": self.grid,
            "gap": self.gap,
            "jitter": self.jitter,
            "channel_shift": self.channel_shift,
            "drop_channels": self.drop_channels,
            "project_colors": self.project_colors,
            "normalize": self.normalize,
        }

    @classmethod
    def from_config(cls, config: dict) -> "TileAugmenter":
        """Builds the layer from `get_config`'s dict."""
        arguments = current_names(config)
        return cls(**{**arguments, "view": from_config_of(arguments["view"])})


def cut(xp: Any, images: Any, tops: Any, lefts: Any, size: int) -> Any:
    """Cuts squares out of images, exactly.

    Args:
        xp: namespace of array functions.
        images: float32 tensor `(B, H, W, C)`.
        tops: float32 tensor of whole numbers `(B, T, C)`, the first row of each
            square in each channel; or `(B, T, 1)` for all channels.
        lefts: the first columns, of the same shape.
        size: int, the squares' height and width.

    Returns:
        Float32 tensor `(B, T, size, size, C)`.
    """
    _, height, width, _ = images.shape
    rows = _selection(xp, tops, size, height)
    columns = _selection(xp, lefts, size, width)
    x = xp.transpose(images, (0, 3, 1, 2))[:, None]
    x = xp.matmul(rows, x)
    x = xp.matmul(x, xp.transpose(columns, (0, 1, 2, 4, 3)))
    return xp.transpose(x, (0, 1, 3, 4, 2))


def _selection(xp: Any, starts: Any, size: int, extent: int) -> Any:
    """Returns rows with one 1 in each, `(..., size, extent)`."""
    wanted = starts[..., None] + xp.cast(xp.arange(size), "float32")
    pixel = xp.cast(xp.arange(extent), "float32")
    return xp.cast(xp.abs(wanted[..., None] - pixel) < 0.5, "float32")


def project_colors(xp: Any, images: Any, chosen: Any) -> Any:
    """Removes the direction from green to magenta from colors.

    Args:
        xp: namespace of array functions.
        images: float32 tensor `(..., 3)`.
        chosen: float32 tensor of 0 and 1 that broadcasts to it.

    Returns:
        Float32 tensor like `images`. Gray stays gray.
    """
    red, green, blue = GREEN_MAGENTA
    length = red**2 + green**2 + blue**2
    part = images[..., 0:1] * red
    part = part + images[..., 1:2] * green + images[..., 2:3] * blue
    part = part * chosen / length
    moved = [part * weight for weight in GREEN_MAGENTA]
    return images - xp.concatenate(moved, axis=-1)


def drop_channels(xp: Any, tiles: Any, kept: Any, chosen: Any) -> Any:
    """Keeps one channel, around gray, and makes the others gray.

    Args:
        xp: namespace of array functions.
        tiles: float32 tensor `(B, T, h, w, 3)` in [0, 255].
        kept: float32 one-hot tensor `(B, T, 1, 1, 3)`.
        chosen: float32 tensor `(B, 1, 1, 1, 1)` of 0 and 1.

    Returns:
        Float32 tensor like `tiles`.
    """
    mean = xp.mean(tiles, axis=(2, 3), keepdims=True)
    dropped = (tiles - mean) * kept + 127.5
    return chosen * dropped + (1.0 - chosen) * tiles


def normalize(xp: Any, tiles: Any) -> Any:
    """Gives all tiles the same mean and contrast.

    Args:
        xp: namespace of array functions.
        tiles: float32 tensor `(B, T, h, w, C)` in [0, 255].

    Returns:
        Float32 tensor like `tiles`: mean 127.5 and standard deviation 50,
        over the tile's pixels and channels.
    """
    axes = (2, 3, 4)
    tiles = tiles - xp.mean(tiles, axis=axes, keepdims=True)
    variance = xp.mean(xp.square(tiles), axis=axes, keepdims=True)
    # The 1 keeps tiles of a single color from growing noise.
    return tiles * (50.0 / xp.sqrt(variance + 1.0)) + 127.5
