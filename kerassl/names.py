"""Names that can be checked before Keras is loaded, which takes seconds."""

import importlib.resources
import tomllib
from typing import Any

from kerassl.choices import check_choice

#: The methods that have recipes: the files `recipes/NAME.toml`.
METHODS = (
    "moco_v1",
    "moco_v2",
    "moco_v3",
    "simclr",
    "simclr_v2",
    "byol",
    "simsiam",
    "swav",
    "barlow_twins",
    "vicreg",
    "context_encoder",
    "context_prediction",
    "jigsaw",
    "rotation",
    "mae",
)
#: The share of a folder's images that may be unreadable, if nothing is said.
MAX_UNREADABLE = 0.01
#: The encoders that `kerassl.encoders.build` knows.
ENCODERS = (
    "resnet_nano",
    "resnet_18_small",
    "resnet_50_small",
    "resnet_18",
    "resnet_50",
    "vit_nano",
    "vit_tiny",
    "vit_small",
    "vit_base",
)
#: What `kerassl pretrain --monitor` watches.
MONITORS = ("knn", "linear", "collapse")
#: Columns of a run's history that measure speed.
TIMES = ("seconds", "images_per_second")


def read_recipes(method: str) -> dict[str, dict[str, Any]]:
    """Returns a method's recipes, by name.

    Args:
        method: str, one of `METHODS`.

    Raises:
        ValueError: if there is no such method, with the nearest ones.
    """
    check_choice("method", method, METHODS)
    folder = importlib.resources.files("kerassl") / "recipes"
    text = (folder / f"{method}.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def check_recipe(method: str, name: str) -> dict[str, Any]:
    """Returns a recipe's fields.

    Args:
        method: str, one of `METHODS`.
        name: str, of one of its recipes.

    Raises:
        ValueError: if there is no such method or recipe, with the nearest ones.
    """
    recipes = read_recipes(method)
    check_choice(f"recipe of {method}", name, recipes)
    return recipes[name]
