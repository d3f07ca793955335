"""Recipes: the hyperparameters of each method, as data, by name."""

from kerassl.names import check_recipe, read_recipes
from kerassl.recipes.recipe import METHODS, Recipe, build_model

__all__ = ["Recipe", "build_model", "default", "get", "methods", "names"]

# The `cpu` and `cifar` recipes are made for images of up to so many pixels.
SMALL_SIZE = 64


def methods() -> list[str]:
    """Returns the names of the methods that have recipes."""
    return list(METHODS)


def names(method: str) -> list[str]:
    """Returns the names of a method's recipes.

    Args:
        method: str, one of `methods()`.

    Returns:
        A list of names.

    Raises:
        ValueError: if there is no such method, with the nearest ones.
    """
    return list(read_recipes(method))


def get(method: str, name: str = "cpu") -> Recipe:
    """Returns a recipe by name.

    Args:
        method: str, one of `methods()`.
        name: str, one of `names(method)`.

    Returns:
        A `Recipe`.

    Raises:
        ValueError: if there is no such method or recipe, with the nearest ones.

    Example:
    ```python
    recipe = kerassl.recipes.get("simclr", "cpu")
    ```
    """
    return Recipe(method=method, name=name, **check_recipe(method, name))


def default(method: str, image_size: int, accelerator: bool) -> Recipe:
    """Returns the recipe that fits the images and the device.

    Without an accelerator it is `cpu`, which makes images of more than 64
    pixels that small: at their own size they would take hours. With one it is
    `cifar` for images of up to 64 pixels, and `imagenet` for larger ones.

    Args:
        method: str, one of `methods()`.
        image_size: int > 0, the short side of the images, in pixels.
        accelerator: bool. Whether there is a GPU or a TPU.

    Returns:
        A `Recipe`.

    Raises:
        ValueError: if there is no such method, with the nearest ones.

    Example:
    ```python
    recipe = kerassl.recipes.default("simclr", 224, accelerator=False)
    recipe.name, recipe.image_size  # ("cpu", 64)
    ```
    """
    small = image_size <= SMALL_SIZE
    if accelerator:
        return get(method, "cifar" if small else "imagenet")
    return get(method, "cpu").replace(image_size=None if small else SMALL_SIZE)
