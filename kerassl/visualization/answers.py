"""The arrays behind the pictures: the inputs of a model and its predictions."""

from typing import Any

import keras
import numpy as np
from keras import ops

from kerassl import methods
from kerassl.data import ImageData, check_images
from kerassl.methods.predictive.context_prediction import neighbors
from kerassl.methods.predictive.rotation import turns
from kerassl.training.random_state import seed_states

# The index of the middle one of nine tiles.
CENTER = 4


def draw_views(
    model: methods.SelfSupervisedModel, images: Any, seed: int = 0
) -> dict[str, np.ndarray]:
    """Draws views of images, and a model's other random inputs, from a seed.

    The model's random state doesn't change, so pictures drawn during training
    don't affect it.

    Args:
        model: `SelfSupervisedModel`.
        images: array `(N, H, W, C)`, uint8 or float in [0, 255]; or the
            `images` of `kerassl.data.load`. Views of photos are cut out of the
            whole photos, as for training.
        seed: int. The same seed and images give the same views.

    Returns:
        A dict of NumPy arrays, named like the augmenter's views and the
        model's `drawn_names`. Floats are float32; integers keep their dtype.

    Raises:
        ValueError: if the shape, dtype or range of the images is wrong.
    """
    given = images
    plan = getattr(model.augmenter, "crop_plan", None)
    if plan is not None and hasattr(images, "read_cuts"):
        batches = ImageData(images).batches(len(images), seed=seed)
        batches.cut(plan)
        (given,) = batches[0]
    else:
        check_images(images)
    given = keras.tree.map_structure(ops.convert_to_tensor, given)
    seeds = [
        (state, ops.convert_to_tensor([seed, i], dtype=state.dtype))
        for i, state in enumerate(seed_states(model))
    ]
    with keras.StatelessScope(state_mapping=seeds):
        made = model.make_views(given)
    found = {
        name: made[name]
        for name in (*model.augmenter.view_names, *model.drawn_names)
    }
    return {
        name: ops.convert_to_numpy(
            ops.cast(x, "float32")
            if "float" in keras.backend.standardize_dtype(x.dtype)
            else x
        )
        for name, x in found.items()
    }


def rotation_answers(
    model: methods.Rotation, images: Any, seed: int = 0
) -> dict[str, np.ndarray]:
    """Returns the rotations that a `Rotation` model predicts.

    Args:
        model: `kerassl.Rotation`.
        images: array `(N, H, W, C)`, uint8 or float in [0, 255].
        seed: int, the seed of the views.

    Returns:
        A dict: `"turned"`, float32 `(4, N, S, S, C)`, the views rotated by 0
        to 3 quarter turns; and `"predicted"`, ints `(4, N)`, the predicted
        numbers of quarter turns. The true number is the row's index.

    Raises:
        ValueError: if the model is of another class, or the shape, dtype or
            range of the images is wrong.
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
    """Returns the permutations that a `Jigsaw` model predicts.

    Args:
        model: `kerassl.Jigsaw`.
        images: array `(N, H, W, C)`, uint8 or float in [0, 255].
        seed: int, the seed of the views and orders.

    Returns:
        A dict: float32 arrays `(N, 9, S, S, C)` `"tiles"`, in their original
        order, `"shuffled"`, and `"restored"`, put back as the model guesses;
        and int arrays `(N, 9)` `"order"` and `"predicted"`, the index of the
        tile at each position, the true and the predicted one.

    Raises:
        ValueError: if the model is of another class, or the shape, dtype or
            range of the images is wrong.
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
    """Returns the positions that a `ContextPrediction` model predicts.

    Args:
        model: `kerassl.ContextPrediction`.
        images: array `(N, H, W, C)`, uint8 or float in [0, 255].
        seed: int, the seed of the views.

    Returns:
        A dict: `"tiles"`, float32 `(N, 9, S, S, C)`, in row-major order; and
        `"predicted"`, ints `(N, 8)`, the predicted direction of each neighbor
        from the center. The true direction is the column's index: 0 to 7 from
        the upper left, in row-major order.

    Raises:
        ValueError: if the model is of another class, or the shape, dtype or
            range of the images is wrong.
    """
    check_kind(model, methods.ContextPrediction)
    drawn = draw_views(model, images, seed)
    logits = model.predict_on_batch(drawn)["logits"]
    first, _, _ = neighbors()
    return {
        "tiles": drawn["tiles"],
        "predicted": logits[:, first == CENTER].argmax(axis=-1),
    }


def check_kind(model: Any, kind: type) -> None:
    """Checks the class of a model.

    Raises:
        ValueError: naming the class needed and the class received.
    """
    if not isinstance(model, kind):
        raise ValueError(
            f"This picture needs a `kerassl.{kind.__name__}`. Received: "
            f"{type(model).__name__}. `kerassl.visualization.pretext` picks "
            "the picture that fits a model."
        )
