"""Pictures of views, and of what a model guesses."""

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
from kerassl.visualization.figures import (
    RIGHT,
    WRONG,
    gap,
    head,
    judge,
    make_figure,
    mosaic,
    show,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The pixel value in place of hidden pixels, in [0, 255].
HIDDEN = 127.5
# Images per row in pictures of one axis per image.
COLUMNS = 4


def views(
    model: methods.SelfSupervisedModel, images: Any, seed: int = 0
) -> "Figure":
    """Draws images beside their views, as the model's augmenter makes them.

    Args:
        model: any `SelfSupervisedModel`.
        images: array `(N, H, W, C)`, uint8 or float in [0, 255]; or the
            `images` of `kerassl.data.load`: views of photos are cut out of
            the whole photos.
        seed: int, the seed of the views.

    Returns:
        A `matplotlib.figure.Figure` with one row per image. Tiles are shown in
        their grid.

    Raises:
        ImportError: without matplotlib.
        ValueError: if the shape, dtype or range of the images is wrong.

    Example:
    ```python
    figure = kerassl.visualization.views(model, images[:8])
    figure.savefig("views.png")
    ```
    """
    drawn = draw_views(model, images, seed)
    names = list(model.augmenter.view_names)
    figure, axes = make_figure(len(images), 1 + len(names))
    for row, image in zip(axes, ops.convert_to_numpy(images[:])):
        show(row[0], image)
    for name, column in zip(names, axes.T[1:]):
        for axis, view in zip(column, drawn[name]):
            show(axis, mosaic(view) if view.ndim == 4 else view)
    head(axes, ["image", *(name.replace("_", " ") for name in names)])
    return figure


def reconstructions(model: Any, images: Any) -> "Figure":
    """Draws what a model sees, its reconstruction and the image.

    Args:
        model: one with a `reconstruct` method: `kerassl.MAE`,
            `kerassl.SimMIM` or `kerassl.ContextEncoder`.
        images: array `(N, S, S, C)` of the encoder's input size, uint8 or float
            in [0, 255].

    Returns:
        A `matplotlib.figure.Figure` with one row per image: its visible part,
        with hidden pixels in gray; the reconstruction; and the image.

    Raises:
        ImportError: without matplotlib.
        ValueError: if the model has no `reconstruct`, or the shape, dtype or
            range of the images is wrong.
    """
    if not hasattr(model, "reconstruct"):
        raise ValueError(
            f"A {type(model).__name__} doesn't reconstruct images. "
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
    """Draws the four rotations of images, with the predicted angles.

    Args:
        model: `kerassl.Rotation`.
        images: array `(N, H, W, C)`, uint8 or float in [0, 255].
        seed: int, the seed of the views.

    Returns:
        A `matplotlib.figure.Figure` with one row per image. Above each
        rotation is the predicted angle, counter-clockwise: in green if it is
        right; else in red, with the true angle.

    Raises:
        ImportError: without matplotlib.
        ValueError: if the model is of another class, or the shape, dtype or
            range of the images is wrong.
    """
    made = rotation_answers(model, images, seed)
    turns, count = made["predicted"].shape
    figure, axes = make_figure(count, turns)
    for turn in range(turns):
        for i, axis in enumerate(axes[:, turn]):
            guess = made["predicted"][turn, i]
            show(axis, made["turned"][turn, i])
            truth = "" if guess == turn else f", is {90 * turn}°"
            judge(axis, f"{90 * guess}°{truth}", guess == turn)
    return figure


def jigsaw(model: methods.Jigsaw, images: Any, seed: int = 0) -> "Figure":
    """Draws puzzles, and how the model solves them.

    Args:
        model: `kerassl.Jigsaw`.
        images: array `(N, H, W, C)`, uint8 or float in [0, 255].
        seed: int, the seed of the views and orders.

    Returns:
        A `matplotlib.figure.Figure` with one row per image: its tiles in
        order, shuffled, and put back as the model guesses. Above the last is
        the number of tiles in the right position, in green if all nine are,
        else in red.

    Raises:
        ImportError: without matplotlib.
        ValueError: if the model is of another class, or the shape, dtype or
            range of the images is wrong.
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
    """Draws patches, and the predicted direction of each from the center.

    Args:
        model: `kerassl.ContextPrediction`.
        images: array `(N, H, W, C)`, uint8 or float in [0, 255].
        seed: int, the seed of the views.

    Returns:
        A `matplotlib.figure.Figure` with the nine patches of each image in
        their grid. On each patch but the center an arrow shows the direction
        from the center that the model predicts for it: green if it is right,
        else red.

    Raises:
        ImportError: without matplotlib.
        ValueError: if the model is of another class, or the shape, dtype or
            range of the images is wrong.
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
    for axis, tiles, guesses in zip(
        axes.flat, made["tiles"], made["predicted"]
    ):
        show(axis, mosaic(tiles))
        for i, (down, right) in enumerate(POSITIONS):
            # The center of the neighbor.
            x = (1 + right) * step + (size - 1) / 2
            y = (1 + down) * step + (size - 1) / 2
            down, right = np.array(POSITIONS[guesses[i]]) * size / 3
            axis.annotate(
                "",
                (x + right, y + down),
                (x - right, y - down),
                arrowprops=dict(
                    arrowstyle="-|>",
                    color=RIGHT if guesses[i] == i else WRONG,
                    linewidth=2,
                    mutation_scale=15,
                    shrinkA=0,
                    shrinkB=0,
                    path_effects=outline,
                ),
            )
        hits = int((guesses == np.arange(len(POSITIONS))).sum())
        axis.set_title(f"{hits} of {len(POSITIONS)}", fontsize="small")
    return figure


def pretext(
    model: methods.SelfSupervisedModel, images: Any, seed: int = 0
) -> "Figure":
    """Draws the picture that shows a model's pretext task.

    Args:
        model: any `SelfSupervisedModel`.
        images: array `(N, H, W, C)`, uint8 or float in [0, 255]; of the
            encoder's size for MAE, SimMIM and the context encoder.
        seed: int, the seed of the views. The masks of MAE, SimMIM and the
            context encoder depend on the model's own seed.

    Returns:
        The `matplotlib.figure.Figure` of `rotations`, `jigsaw`, `positions` or
        `reconstructions`, or of `views` for methods whose predictions aren't
        pixels or answers, such as I-JEPA, iBOT and DINOv2.

    Raises:
        ImportError: without matplotlib.
        ValueError: if the shape, dtype or range of the images is wrong.

    Example:
    ```python
    kerassl.visualization.pretext(model, images[:8]).savefig("guesses.png")
    ```
    """
    return picture_of(model)(model, images, seed)


def picture_of(
    model: methods.SelfSupervisedModel,
) -> Callable[[Any, Any, int], "Figure"]:
    """Returns the function that draws the picture of `pretext`.

    Args:
        model: any `SelfSupervisedModel`.

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
