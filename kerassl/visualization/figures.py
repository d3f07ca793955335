"""Matplotlib figures of images, without pyplot's global state."""

from typing import Any

import numpy as np

# Colors of right and wrong guesses.
RIGHT, WRONG = "tab:green", "tab:red"
# The pixel value between tiles, in [0, 255].
PAPER = 255.0
# Inches per image.
CELL = 1.5


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


def show(axis: Any, image: np.ndarray, **options: Any) -> None:
    """Draws an image, in gray if it has one channel.

    Args:
        axis: matplotlib axes; their frame and ticks are hidden.
        image: array `(H, W, C)`, values in [0, 255].
        **options: arguments of `imshow`.
    """
    pixels = np.clip(np.rint(image), 0, 255).astype("uint8")
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
