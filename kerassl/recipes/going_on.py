"""Recipes that go on from trained weights without destroying them."""

from kerassl.recipe_fields import going_on_changes
from kerassl.recipes.recipe import METHODS, Recipe, arguments_of


def going_on(recipe: Recipe) -> Recipe:
    """Returns a recipe for an encoder that has been trained before.

    The heads of a method start at random, and their first gradients would
    destroy what the encoder has learned. So the encoder is frozen for an epoch,
    or for a fifth of a short run, while the heads are warmed up. Then it learns
    at a tenth of the recipe's rate, and the earlier a part of it is, the more
    slowly. The target of BYOL starts from the same weights.

    Args:
        recipe: `Recipe`, for training from scratch.

    Returns:
        A `Recipe`, whose encoder is `"weights"`.

    Example:
    ```python
    recipe = kerassl.recipes.going_on(kerassl.recipes.get("simclr"))
    run = kerassl.runs.start(
        "runs/a", recipe, "folder:photos", weights="hf://ada/resnet"
    )
    ```
    """
    has_copy = "copy_weights" in arguments_of(METHODS[recipe.method])
    return recipe.change(**going_on_changes(has_copy))
