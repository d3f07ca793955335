"""Recipes that go on from trained weights without destroying them."""

from kerassl.names import FROM_WEIGHTS
from kerassl.recipes.recipe import METHODS, Recipe, arguments_of

# Measured by scripts/going_on.py; docs/going_on.md has its table.
SCHEDULE = {
    "shares": {"encoder": 0.1},
    "layer_decay": 0.75,
    "frozen_epochs": {"encoder": 1},
    "frozen_share": 0.2,
}


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
    arguments = {}
    if "copy_weights" in arguments_of(METHODS[recipe.method]):
        arguments["copy_weights"] = True
    return recipe.change(
        encoder=FROM_WEIGHTS, schedule=SCHEDULE, method_args=arguments
    )
