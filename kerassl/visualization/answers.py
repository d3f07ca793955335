"""The numbers behind the pictures: what a model is asked, and what it says."""

from typing import Any

import keras
import numpy as np
from keras import ops

from kerassl import methods
from kerassl.data import check_images
from kerassl.methods.base import SEED_STATE
from kerassl.methods.predictive.context_prediction import neighbors
from kerassl.methods.predictive.rotation import turns

# The tile in the middle of nine.
CENTRE = 4


def draw_views(
    model: methods.SelfSupervisedModel, images: Any, seed: int = 0
) -> dict[str, np.ndarray]:
    """Draws views of images, and what else is random, from an own seed.

    The model's random state stays as it is: a run with pictures draws the views
    that it would have drawn without.

    Args:
        model: `SelfSupervisedModel`.
        images: array `(N, H, W, C)`, uint8 or float in [0, 255].
        seed: int. The same seed and images give the same views.

    Returns:
        A dict of float32 NumPy arrays, with the names of the augmenter's views
        and of the model's `drawn_names`; whole numbers stay integers.

    Raises:
        ValueError: if the images have another shape, type or range.
    """
    check_images(images)
    states = [v for v in model.variables if v.name == SEED_STATE]
    seeds = [
        (state, ops.convert_to_tensor([seed, i], dtype=state.dtype))
        for i, state in enumerate(states)
    ]
    with keras.StatelessScope(state_mapping=seeds):
        made = model.make_views(ops.convert_to_tensor(images))
    return {
        name: ops.convert_to_numpy(
            ops.cast(x, "float32")
            if "float" in keras.backend.standardize_dtype(x.dtype)
            else x
        )
        for name, x in made.items()
    }


def rotation_answers(
    model: methods.Rotation, images: Any, seed: int = 0
) -> dict[str, np.ndarray]:
    """Asks a `Rotation` model by how much images are turned.

    Args:
        model: `kerassl.Rotation`.
        images: array `(N, H, W, C)`, uint8 or float in [0, 255].
        seed: int, of the views.

    Returns:
        A dict: `"turned"`, float32 `(4, N, S, S, C)`, the views by quarter
        turns; and `"predicted"`, ints `(4, N)`, the quarter turns that the
        model sees. The true ones are 0 to 3, by row.

    Raises:
        ValueError: if the model is another, or the images have another shape,
            type or range.
    """
    check_kind(model, methods.Rotation)
    drawn = draw_views(model, images, seed)
    logits = model.predict_on_batch(drawn)["logits"]
    (image,) = (drawn[name] for name in model.augmenter.view_names)
    turned = [ops.convert_to_numpy(x) for x in turns(image)]
    return {"turned": np.stack(turned), "predicted": logits.argmax(axis=-1)}


def jigsaw_answers(
    model: methods.Jigsaw, images: Any, seed: int = 0
) -> dict[str, np.ndarray]:
    """Asks a `Jigsaw` model in which order tiles were shuffled.

    Args:
        model: `kerassl.Jigsaw`.
        images: array `(N, H, W, C)`, uint8 or float in [0, 255].
        seed: int, of the views and orders.

    Returns:
        A dict: float32 `(N, 9, S, S, C)` arrays `"tiles"`, in place,
        `"shuffled"`, and `"restored"`, put back by the model's guess; and int
        `(N, 9)` arrays `"order"` and `"predicted"`, which tile comes to each
        place, in truth and by the guess.

    Raises:
        ValueError: if the model is another, or the images have another shape,
            type or range.
    """
    check_kind(model, methods.Jigsaw)
    drawn = draw_views(model, images, seed)
    logits = model.predict_on_batch(drawn)["logits"]
    order = model.permutations[drawn["permutation"]]
    predicted = model.permutations[logits.argmax(axis=-1)]
    rows = np.arange(len(order))[:, None]
    shuffled = drawn["tiles"][rows, order]
    restored = np.empty_like(shuffled)
    restored[rows, predicted] = shuffled
    return {
        "tiles": drawn["tiles"],
        "shuffled": shuffled,
        "restored": restored,
        "order": order,
        "predicted": predicted,
    }


def position_answers(
    model: methods.ContextPrediction, images: Any, seed: int = 0
) -> dict[str, np.ndarray]:
    """Asks a `ContextPrediction` model where the center's neighbors lie.

    Args:
        model: `kerassl.ContextPrediction`.
        images: array `(N, H, W, C)`, uint8 or float in [0, 255].
        seed: int, of the views.

    Returns:
        A dict: `"tiles"`, float32 `(N, 9, S, S, C)`, row by row; and
        `"predicted"`, ints `(N, 8)`, the direction in which the model sees each
        neighbor of the center. The true ones are 0 to 7 by column: from the
        upper left, row by row.

    Raises:
        ValueError: if the model is another, or the images have another shape,
            type or range.
    """
    check_kind(model, methods.ContextPrediction)
    drawn = draw_views(model, images, seed)
    logits = model.predict_on_batch(drawn)["logits"]
    first, _, _ = neighbors()
    return {
        "tiles": drawn["tiles"],
        "predicted": logits[:, first == CENTRE].argmax(axis=-1),
    }


def check_kind(model: Any, kind: type) -> None:
    """Refuses a model of another kind than the picture is of.

    Raises:
        ValueError: naming both.
    """
    if not isinstance(model, kind):
        raise ValueError(
            f"This picture is of a `kerassl.{kind.__name__}`. Received: "
            f"{type(model).__name__}. `kerassl.visualization.pretext` picks "
            "the picture that fits a model."
        )
