"""Choosing a method and a recipe for the data, on the command line."""

import argparse
from typing import TYPE_CHECKING, Any

from kerassl.auto import AUTO, command
from kerassl.names import METHODS
from kerassl.reading import one_line

if TYPE_CHECKING:
    from kerassl.auto import Choice
    from kerassl.recipes import Recipe


def choose_method(
    options: argparse.Namespace, changes: dict[str, Any]
) -> "Choice":
    """Returns what the rules choose for the data, besides what is given."""
    from kerassl import recipes

    found = recipes.facts(
        options.data,
        image_size=changes.get("image_size"),
        limit=options.limit,
        data_dir=options.data_dir,
        value_range=options.value_range,
    )
    given = {**changes, "weights": options.weights, "recipe": options.recipe}
    views = given.get("views")
    if isinstance(views, dict):
        given["views.preset"] = views.get("preset")
    return recipes.choose(found, given)


def print_choice(options: argparse.Namespace, choice: "Choice") -> None:
    """Prints the rules that had a say, and the command that does the same."""
    for reason in choice.reasons:
        print(f"because  {one_line(reason)}", flush=True)
    words = command(options.arguments, _place_of_method(options), choice)
    print(f"command  {one_line(words)}", flush=True)


def _place_of_method(options: argparse.Namespace) -> int:
    """Returns which word is the method: that which changes what is parsed.

    Values of options may be `auto` too, such as that of --precision.
    """
    words = options.arguments

    def is_method(at: int) -> bool:
        others = [*words[:at], METHODS[0], *words[at + 1 :]]
        return options.parse(others).method != AUTO

    return next(
        at for at, word in enumerate(words) if word == AUTO and is_method(at)
    )


def choose_recipe(
    method: str,
    data: str,
    *,
    weights: str | None = None,
    data_dir: str | None = None,
    image_size: int | None = None,
) -> tuple["Recipe", str]:
    """Returns the recipe for the data and the device, and why in words."""
    from kerassl import recipes
    from kerassl.data.load import peek_size
    from kerassl.environment import environment, has_accelerator

    if image_size is not None:
        size, various = image_size, False
    elif weights is not None and (fixed := _size_of(weights)):
        size, various = fixed, False
    else:
        size, various = peek_size(data, data_dir=data_dir)
    recipe = recipes.default(method, size, has_accelerator())
    if various and recipe.image_size is None:
        recipe = recipe.replace(image_size=size)
    device = environment()["device"]
    words = f"recipe {recipe.name}, for images of "
    words += f"{'about ' * various}{size} px on {device}"
    if image_size is None and recipe.image_size is not None:
        words += f", resized to {recipe.image_size} px"
    return recipe, f"{words} (--recipe and --image-size choose otherwise)"


def _size_of(weights: str) -> int | None:
    """Returns the image size of weights, `None` if they take any."""
    from kerassl.runs.subject import load_size
    from kerassl.runs.weights import open_weights

    size = load_size(open_weights(weights))
    return None if size is None else min(size)
