"""How many epochs fit into some minutes."""

import concurrent.futures
import multiprocessing
import time
from typing import Any

# Of a measurement. The first steps, which may compile, aren't counted.
STEPS = 20
# The share of the time that training may take: the rest is for the start, the
# first steps and the checkpoints.
SHARE = 0.9


def epoch_seconds(model: Any, images: Any, batch_size: int) -> float:
    """Returns the seconds that an epoch takes on this machine.

    Args:
        model: a compiled `SelfSupervisedModel`, whose weights are changed.
        images: `kerassl.data.ImageData`.
        batch_size: int.
    """
    some = images.select(slice(STEPS * batch_size))
    for _ in range(2):  # The first one compiles.
        start = time.perf_counter()
        model.fit(some, batch_size=batch_size, verbose=0)
        seconds = time.perf_counter() - start
    return seconds * len(images.images) / len(some.images)


def _recipe_seconds(recipe: Any, data: str) -> float:
    from kerassl import recipes
    from kerassl.data import load

    images = load(data, "train")
    steps = len(images.images) // recipe.batch_size
    model = recipes.build_model(recipe, images.image_shape, steps)
    return epoch_seconds(model, images, recipe.batch_size)


def epochs_in(minutes: float, recipe: Any, data: str) -> int:
    """Returns how many epochs of a recipe fit into some minutes here.

    It is measured in a process of its own, which gives its memory back.

    Args:
        minutes: float.
        recipe: `kerassl.recipes.Recipe`.
        data: str, as in `kerassl.data.load`.
    """
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as pool:
        seconds = pool.submit(_recipe_seconds, recipe, data).result()
    return max(1, int(SHARE * 60 * minutes / seconds))
