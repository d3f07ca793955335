"""Pictures as matplotlib figures, without pyplot's global state."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from keras import ops

from kerassl import methods
from kerassl.methods.predictive.context_prediction import POSITIONS
from kerassl.visualization.answers import (
    draw_views,
    jigsaw_answers,
    position_answers,
    rotation_answers,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RIGHT, WRONG = "tab:green", "tab:red"
# What lies between tiles, and what is hidden: of [0, 255].
PAPER, HIDDEN = 255.0, 127.5
# Inches an image, and the columns of pictures without a number of their own.
CELL, COLUMNS = 1.5, 4


def views(
    model: methods.SelfSupervisedModel, images: Any, seed: int = 0
) -> "Figure":
    """Draws images beside the views that the model's augmenter makes of them.

    Args:
        model: `SelfSupervisedModel`, of any kind.
        images: array `(N, H, W, C)`, uint8 or float in [0, 255].
        seed: int, of the views.

    Returns:
        A `matplotlib.figure.Figure`: a row for each image. Tiles are shown in
        their grid.

    Raises:
        ImportError: without matplotlib.
        ValueError: if the images have another shape, type or range.

    Example:
    ```python
    figure = kerassl.visualization.views(model, images[:8])
    figure.savefig("views.png")
    ```
    """
    drawn = draw_views(model, images, seed)
    names = list(model.augmenter.view_names)
    figure, axes = make_figure(len(images), 1 + len(names))
    for row, image in zip(axes, ops.convert_to_numpy(images)):
        show(row[0], image)
    for name, column in zip(names, axes.T[1:]):
        for axis, view in zip(column, drawn[name]):
            show(axis, mosaic(view) if view.ndim == 4 else view)
    head(axes, ["image", *(name.replace("_", " ") for name in names)])
    return figure


def reconstructions(model: Any, images: Any) -> "Figure":
    """Draws what a generative model is shown, what it paints, and the truth.

    Args:
        model: one with `reconstruct`: `kerassl.MAE`, `kerassl.ContextEncoder`.
        images: array `(N, S, S, C)` of the encoder's size, uint8 or float in
            [0, 255].

    Returns:
        A `matplotlib.figure.Figure`: a row for each image, of what is visible,
        with gray in place of what is hidden, the reconstruction and the image.

    Raises:
        ImportError: without matplotlib.
        ValueError: if the model doesn't reconstruct, or the images have another
            shape, type or range.
    """
    if not hasattr(model, "reconstruct"):
        raise ValueError(
            f"A {type(model).__name__} reconstructs no images. "
            "`kerassl.visualization.pretext` picks the picture that fits a "
            "model."
        )
    made = model.reconstruct(images)
    truth = ops.convert_to_numpy(images).astype("float32")
    seen = truth + made["mask"] * (HIDDEN - truth)
    figure, axes = make_figure(len(truth), 3)
    for row, *shown in zip(axes, seen, made["reconstruction"], truth):
        for axis, image in zip(row, shown):
            show(axis, image)
    head(axes, ["visible", "reconstruction", "image"])
    return figure


def rotations(model: methods.Rotation, images: Any, seed: int = 0) -> "Figure":
    """Draws the four turns of images, with the angle that the model sees.

    Args:
        model: `kerassl.Rotation`.
        images: array `(N, H, W, C)`, uint8 or float in [0, 255].
        seed: int, of the views.

    Returns:
        A `matplotlib.figure.Figure`: a row for each image, and above each turn
        the predicted angle, counter-clockwise: green if it is right, else red
        and with the true one.

    Raises:
        ImportError: without matplotlib.
        ValueError: if the model is another, or the images have another shape,
            type or range.
    """
    made = rotation_answers(model, images, seed)
    turns, count = made["predicted"].shape
    figure, axes = make_figure(count, turns)
    for turn in range(turns):
        for i, axis in enumerate(axes[:, turn]):
            said = made["predicted"][turn, i]
            show(axis, made["turned"][turn, i])
            truth = "" if said == turn else f", is {90 * turn}°"
            judge(axis, f"{90 * said}°{truth}", said == turn)
    return figure


def jigsaw(model: methods.Jigsaw, images: Any, seed: int = 0) -> "Figure":
    """Draws puzzles, and how the model puts them together.

    Args:
        model: `kerassl.Jigsaw`.
        images: array `(N, H, W, C)`, uint8 or float in [0, 255].
        seed: int, of the views and orders.

    Returns:
        A `matplotlib.figure.Figure`: a row for each image, of its tiles in
        place, shuffled, and put back by the model's guess; above that how many
        of the nine are in place, green if all are, else red.

    Raises:
        ImportError: without matplotlib.
        ValueError: if the model is another, or the images have another shape,
            type or range.
    """
    made = jigsaw_answers(model, images, seed)
    in_place = (made["order"] == made["predicted"]).sum(axis=1)
    figure, axes = make_figure(len(in_place), 3)
    for i, row in enumerate(axes):
        for axis, name in zip(row, ("tiles", "shuffled", "restored")):
            show(axis, mosaic(made[name][i]))
        right = in_place[i] == 9
        word = "right" if right else "wrong"
        judge(row[2], f"{word}: {in_place[i]} of 9", right)
    head(axes, ["tiles", "shuffled"])
    return figure


def positions(
    model: methods.ContextPrediction, images: Any, seed: int = 0
) -> "Figure":
    """Draws patches, and where the model sees each from the center.

    Args:
        model: `kerassl.ContextPrediction`.
        images: array `(N, H, W, C)`, uint8 or float in [0, 255].
        seed: int, of the views.

    Returns:
        A `matplotlib.figure.Figure`: the nine patches of each image in place.
        On each but the center an arrow points where the model says that it
        lies, as seen from the center: green if it is right, else red.

    Raises:
        ImportError: without matplotlib.
        ValueError: if the model is another, or the images have another shape,
            type or range.
    """
    made = position_answers(model, images, seed)
    count, (_, size, _, _) = len(made["tiles"]), made["tiles"].shape[1:]
    columns = min(count, COLUMNS)
    figure, axes = make_figure(-(-count // columns), columns, scale=1.5)
    from matplotlib.patheffects import withStroke

    outline = [withStroke(linewidth=4, foreground="white")]
    step = size + gap(size)
    for axis in axes.flat[count:]:
        axis.set_axis_off()
    for axis, tiles, said in zip(axes.flat, made["tiles"], made["predicted"]):
        show(axis, mosaic(tiles))
        for place, (down, right) in enumerate(POSITIONS):
            # The middle of the neighbor.
            x = (1 + right) * step + (size - 1) / 2
            y = (1 + down) * step + (size - 1) / 2
            down, right = np.array(POSITIONS[said[place]]) * size / 3
            axis.annotate(
                "",
                (x + right, y + down),
                (x - right, y - down),
                arrowprops=dict(
                    arrowstyle="-|>",
                    color=RIGHT if said[place] == place else WRONG,
                    linewidth=2,
                    mutation_scale=15,
                    shrinkA=0,
                    shrinkB=0,
                    path_effects=outline,
                ),
            )
        hits = int((said == np.arange(len(POSITIONS))).sum())
        axis.set_title(f"{hits} of {len(POSITIONS)}", fontsize="small")
    return figure


def pretext(
    model: methods.SelfSupervisedModel, images: Any, seed: int = 0
) -> "Figure":
    """Draws the picture that fits the model.

    Args:
        model: `SelfSupervisedModel`, of any kind.
        images: array `(N, H, W, C)`, uint8 or float in [0, 255].
        seed: int, of the views. The masks of MAE and the context encoder
            follow the model's own seed.

    Returns:
        The `matplotlib.figure.Figure` of `rotations`, `jigsaw`, `positions` or
        `reconstructions`, and of `views` for the methods that guess nothing
        which could be seen.

    Raises:
        ImportError: without matplotlib.
        ValueError: if the images have another shape, type or range.

    Example:
    ```python
    kerassl.visualization.pretext(model, images[:8]).savefig("guesses.png")
    ```
    """
    return picture_of(model)(model, images, seed)


def picture_of(
    model: methods.SelfSupervisedModel,
) -> Callable[[Any, Any, int], "Figure"]:
    """Returns the function that draws what `pretext` draws.

    Args:
        model: `SelfSupervisedModel`, of any kind.

    Returns:
        A function of a model, images and a seed.
    """
    if hasattr(model, "reconstruct"):
        return lambda model, images, seed: reconstructions(model, images)
    if isinstance(model, methods.Rotation):
        return rotations
    if isinstance(model, methods.Jigsaw):
        return jigsaw
    if isinstance(model, methods.ContextPrediction):
        return positions
    return views


def mosaic(tiles: np.ndarray) -> np.ndarray:
    """Lays tiles out in their square grid, on white.

    Args:
        tiles: array `(T, h, w, C)`, row by row; T is a square.

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
    """Returns the pixels between tiles of a size."""
    return max(1, size // 8)


def load_matplotlib() -> Any:
    """Returns matplotlib's `Figure`.

    Raises:
        ImportError: saying how to install it.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "Pictures need matplotlib. Install it with: "
            'pip install "kerassl[viz]"'
        ) from error
    return Figure


def make_figure(rows: int, columns: int, scale: float = 1.0) -> tuple[Any, Any]:
    """Makes a figure of images.

    Args:
        rows: int.
        columns: int.
        scale: float, of an image's usual size.

    Returns:
        A pair: the figure, and an array of axes `(rows, columns)`.
    """
    size = (scale * CELL * columns, scale * CELL * rows + 0.3)
    figure = load_matplotlib()(figsize=size, layout="constrained")
    # More than what lies between tiles.
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)
    return figure, figure.subplots(rows, columns, squeeze=False)


def show(axis: Any, image: np.ndarray, **where: Any) -> None:
    """Shows an image, values in [0, 255], gray if it has one channel.

    Args:
        axis: matplotlib's axes; they are hidden.
        image: array `(H, W, C)`.
        **where: arguments of `imshow`.
    """
    pixels = np.clip(np.rint(image), 0, 255).astype("uint8")
    if pixels.shape[-1] == 1:
        axis.imshow(pixels[..., 0], cmap="gray", vmin=0, vmax=255, **where)
    else:
        axis.imshow(pixels, **where)
    axis.set_axis_off()


def head(axes: Any, titles: list[str]) -> None:
    """Gives the first row of axes titles."""
    for axis, title in zip(axes[0], titles):
        axis.set_title(title, fontsize="small")


def judge(axis: Any, title: str, right: bool) -> None:
    """Gives axes a title in the color of right or wrong."""
    axis.set_title(title, fontsize="small", color=RIGHT if right else WRONG)


def plain(text: Any, length: int = 20) -> str:
    """Returns text of anybody's as a short line that fonts can show."""
    line = "".join(c if c.isprintable() else " " for c in str(text))
    return line if len(line) <= length else line[: length - 1] + "…"
