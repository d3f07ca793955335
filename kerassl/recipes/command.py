"""The command that trains by a recipe."""

import shlex
from pathlib import Path
from typing import Any

from kerassl import recipes
from kerassl.names import MAX_UNREADABLE


def pretrain_command(
    settings: dict[str, Any], output: str | Path | None = None
) -> str | None:
    """Returns the command that starts a run like one that was.

    Args:
        settings: what its `recipe.json` holds.
        output: path of the new run's folder.

    Returns:
        A line for a shell; `None` if no command makes this recipe, since it
        was changed in Python, or by more epochs on the way.
    """
    if settings.get("extended"):
        return None
    recipe = recipes.Recipe.from_dict(settings["recipe"])
    names = ("encoder", "epochs", "batch_size", "image_size", "seed")
    wanted = {name: getattr(recipe, name) for name in names}
    try:
        known = recipes.get(recipe.method, recipe.name)
    except ValueError:
        return None
    if known.replace(**wanted) != recipe:
        return None
    words = ["kerassl", "pretrain", recipe.method, "--recipe", recipe.name]
    words += ["--data", str(settings["data"])]
    usual = {
        **known.to_dict(),
        "devices": 1,
        "max_unreadable": MAX_UNREADABLE,
    }
    given = {
        name: settings.get(name)
        for name in ("limit", "max_unreadable", "devices")
    }
    for name, value in {**wanted, **given}.items():
        if value is not None and value != usual.get(name):
            words += [f"--{name.replace('_', '-')}", str(value)]
    if output is not None:
        words += ["--output", str(output)]
    return f"KERAS_BACKEND={settings['backend']} {shlex.join(words)}"
