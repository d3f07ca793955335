"""Matplotlib figures of images, without pyplot's global state."""

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import numpy as np

# Colors of right and wrong guesses.
RIGHT, WRONG = "tab:green", "tab:red"
# The pixel value between tiles, in [0, 255].
PAPER = 255.0
# Inches per image.
CELL = 1.5
# The channels that pictures show, counted from 0; `None` for the first three.
_CHANNELS: ContextVar[tuple[int, ...] | None] = ContextVar(
    "channels", default=None
)


def load_matplotlib() -> Any:
    """Imports matplotlib and returns a class of figures.

    Raises:
        ImportError: if matplotlib is missing, with the command that installs
            it.
    """
    try:
        import matplotlib.figure  # noqa: F401

        from kerassl.visualization.shown import ShownFigure
    except ImportError as error:
        raise ImportError(
            "Pictures need matplotlib. Install it with: "
            'pip install "kerassl[viz]"'
        ) from error
    return ShownFigure


def make_figure(rows: int, columns: int, scale: float = 1.0) -> tuple[Any, Any]:
    """Makes a figure with a grid of axes for images.

    Args:
        rows: int.
        columns: int.
        scale: float, relative to the default size of an image.

    Returns:
        A pair: the figure, and an array of axes `(rows, columns)`.
    """
    size = (scale * CELL * columns, scale * CELL * rows + 0.3)
    figure = load_matplotlib()(figsize=size, layout="constrained")
    # Wider than the gap between the tiles of one image.
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)
    return figure, figure.subplots(rows, columns, squeeze=False)


@contextlib.contextmanager
def shown_channels(channels: Sequence[int] | None) -> Iterator[None]:
    """Context in which pictures show other channels than the first three.

    Args:
        channels: one channel, in gray; or three, as red, green and blue. They
            are counted from 0. `None` changes nothing.

    Raises:
        ValueError: if they are another number.
    """
    if channels is not None and len(channels) not in (1, 3):
        raise ValueError(
            "Pictures show one channel, or three as red, green and blue. "
            f"Received: {tuple(channels)}"
        )
    token = _CHANNELS.set(None if channels is None else tuple(channels))
    try:
        yield
    finally:
        _CHANNELS.reset(token)


def visible(image: np.ndarray) -> np.ndarray:
    """Returns the channels of an image that pictures show.

    Those of `shown_channels`; otherwise one channel in gray, or the first
    three as red, green and blue. Of two, blue is black.

    Args:
        image: array `(..., C)`.

    Returns:
        An array `(..., 1)` or `(..., 3)`.

    Raises:
        ValueError: if there is no such channel.
    """
    count = image.shape[-1]
    chosen = _CHANNELS.get()
    if chosen is not None and count > 1:
        if not 0 <= min(chosen) <= max(chosen) < count:
            raise ValueError(
                f"The images have the channels 0 to {count - 1}. Received: "
                f"{chosen}"
            )
        return image[..., list(chosen)]
    if count == 2:
        return np.concatenate([image, np.zeros_like(image[..., :1])], axis=-1)
    return image[..., :3]


def show(axis: Any, image: np.ndarray, **options: Any) -> None:
    """Draws an image, in gray if one channel of it is visible.

    Args:
        axis: matplotlib axes; their frame and ticks are hidden.
        image: array `(H, W, C)`, values in [0, 255].
        **options: arguments of `imshow`.

    Raises:
        ValueError: as `visible`.
    """
    pixels = np.clip(np.rint(visible(image)), 0, 255).astype("uint8")
    if pixels.shape[-1] == 1:
        axis.imshow(pixels[..., 0], cmap="gray", vmin=0, vmax=255, **options)
    else:
        axis.imshow(pixels, **options)
    axis.set_axis_off()


def head(axes: Any, titles: list[str]) -> None:
    """Puts titles above the first row of axes."""
    for axis, title in zip(axes[0], titles):
        axis.set_title(title, fontsize="small")


def judge(axis: Any, title: str, right: bool) -> None:
    """Puts a title above axes: green if `right`, else red."""
    axis.set_title(title, fontsize="small", color=RIGHT if right else WRONG)


def plain(text: Any, length: int = 20) -> str:
    """Returns any text as one short line of printable characters."""
    line = "".join(c if c.isprintable() else " " for c in str(text))
    return line if len(line) <= length else line[: length - 1] + "…"


def mosaic(tiles: np.ndarray) -> np.ndarray:
    """Arranges tiles in a square grid on white.

    Args:
        tiles: array `(T, h, w, C)` in row-major order. T is a square number.

    Returns:
        A float32 array `(H, W, C)`.
    """
    count, height, width, channels = tiles.shape
    side, between = round(count**0.5), gap(height)
    down, right = height + between, width + between
    paper = np.full((side * down, side * right, channels), PAPER, "float32")
    for i, tile in enumerate(tiles):
        top, left = i // side * down, i % side * right
        paper[top : top + height, left : left + width] = tile
    return paper[:-between, :-between]


def gap(size: int) -> int:
    """Returns the number of pixels between tiles of `size` pixels."""
    return max(1, size // 8)
