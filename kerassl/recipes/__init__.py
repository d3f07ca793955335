"""Recipes: the hyperparameters of each method, as data, by name."""

from kerassl.auto import Choice, Facts, choose
from kerassl.recipe_fields import read_recipes
from kerassl.recipes.build import build_model, default, get
from kerassl.recipes.facts import facts
from kerassl.recipes.going_on import going_on
from kerassl.recipes.recipe import METHODS, Recipe

__all__ = [
    "Choice",
    "Facts",
    "Recipe",
    "build_model",
    "choose",
    "default",
    "facts",
    "get",
    "going_on",
    "methods",
    "names",
]


def methods() -> list[str]:
    """Returns the names of the methods, ordered by family and year."""
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
