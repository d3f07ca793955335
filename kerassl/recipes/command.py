"""The command that repeats a run."""

import shlex
from pathlib import Path
from typing import Any

from kerassl import recipes
from kerassl.names import MAX_UNREADABLE
from kerassl.recipe_fields import OPTIONS, list_changes


def pretrain_command(
    settings: dict[str, Any], output: str | Path | None = None
) -> str | None:
    """Returns the command that starts the same run again.

    Args:
        settings: what its `recipe.json` holds.
        output: path of the new run's folder.

    Returns:
        A line for a shell, with the recipe as differences from the method's
        nearest one; `None` if no options express it: a key was removed from
        the recipe in Python, each channel got its own range there, or the run
        got more epochs when it was resumed.
    """
    if settings.get("extended"):
        return None
    value_range = _stated_range(settings)
    if value_range is None:
        return None
    recipe = recipes.Recipe.from_dict(settings["recipe"])
    weights = settings.get("weights")
    options = {name: getattr(recipe, name) for name in OPTIONS}
    found = []
    for name in recipes.names(recipe.method):
        known = recipes.get(recipe.method, name)
        if weights is not None:
            known = recipes.going_on(known)
        changes = list_changes(
            known.replace(**options).to_dict(), recipe.to_dict()
        )
        if changes is not None:
            found.append((len(changes), name != recipe.name, known, changes))
    if not found:
        return None
    *_, known, changes = min(found, key=lambda each: each[:2])
    words = ["kerassl", "pretrain", recipe.method, "--recipe", known.name]
    words += ["--data", str(settings["data"])]
    if weights is not None:
        words += ["--from", str(weights["source"])]
    usual = {
        **known.to_dict(),
        "devices": 1,
        "max_unreadable": MAX_UNREADABLE,
        "guard": "off" if weights is None else "neighbors",
    }
    given = {
        name: settings.get(name)
        for name in ("limit", "max_unreadable", "devices", "guard")
    }
    for name, value in {**options, **given}.items():
        if value is not None and value != usual.get(name):
            words += [f"--{name.replace('_', '-')}", str(value)]
    if value_range:
        words.append(f"--range={value_range}")
    for change in changes:
        words += ["--set", change]
    if output is not None:
        words += ["--output", str(output)]
    return f"KERAS_BACKEND={settings['backend']} {shlex.join(words)}"


def _stated_range(settings: dict[str, Any]) -> str | None:
    """Returns a range as `--range` takes it.

    It is empty if the images or the weights imply the range, and `None` if each
    channel has its own.
    """
    found = settings.get("value_range")
    if "range" in settings:
        return str(settings["range"])
    if found in (None, settings.get("weights", {}).get("value_range")):
        return ""
    pairs = set(zip(found["low"], found["high"]))
    if len(pairs) > 1:
        return None
    return ",".join(map(_number, *pairs))


def _number(value: float) -> str:
    """Returns all digits of a number, without a needless `.0`."""
    return repr(float(value)).removesuffix(".0")
