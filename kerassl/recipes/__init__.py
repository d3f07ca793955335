"""Recipes: the hyperparameters of each method, as data, by name."""

import importlib.resources
import tomllib

from kerassl.recipes.choices import check_choice
from kerassl.recipes.recipe import METHODS, Recipe, build_model

__all__ = ["Recipe", "build_model", "get", "methods", "names"]


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
    return list(_read(method))


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
    tables = _read(method)
    check_choice(f"recipe of {method}", name, tables)
    return Recipe(method=method, name=name, **tables[name])


def _read(method: str) -> dict[str, dict]:
    check_choice("method", method, METHODS)
    file = importlib.resources.files(__name__) / f"{method}.toml"
    return tomllib.loads(file.read_text(encoding="utf-8"))
