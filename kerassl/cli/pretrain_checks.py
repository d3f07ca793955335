"""What `kerassl pretrain` refuses before Keras is loaded."""

import argparse
import re
from pathlib import Path
from typing import Any

from kerassl.auto import AUTO
from kerassl.choices import check_choice
from kerassl.cli.errors import UserError
from kerassl.cli.options import check_data
from kerassl.names import METHODS, MONITORS
from kerassl.reading import shown
from kerassl.recipe_fields import (
    DEFAULTS,
    FIELDS,
    OPTIONS,
    changed,
    check_recipe,
    find_recipe,
    going_on_changes,
    is_file,
    parse_change,
    read_recipes,
)
from kerassl.run_folder import RECIPE, read_settings, refuse_files
from kerassl.run_lock import check_free

# Other options that can be repeated with `--resume`, but not changed.
FIXED = ("data", "limit", "max_unreadable", "range")
_DESTS = {"range": "value_range"}
BY_DEVICE = ("precision", "auto")
_COMMIT = re.compile("@[0-9a-f]{40}(?=/|$)")


def check_options(options: argparse.Namespace) -> None:
    """Refuses mistakes, before Keras is loaded."""
    for name in options.monitor or ():
        check_choice("monitor", name, MONITORS)
    if options.resume:
        return _check_resume(options)
    if options.method is None:
        raise UserError(
            f"Give a method: {', '.join(METHODS)}; or auto, which chooses "
            "one. Or give --resume."
        )
    changes = recipe_changes(options)
    if options.weights is not None and "encoder" in changes:
        raise UserError(
            "--from goes on with the encoder of its weights: leave out "
            "--encoder, or leave out --from to train a new encoder."
        )
    if options.guard not in (None, "off") and options.weights is None:
        raise UserError("--guard is for runs that go on --from weights.")
    fields = find_recipe(_method_to_check(options), options.recipe or "cpu")
    check_recipe(changed(fields, changes))
    if options.data is None:
        raise UserError(
            "Give the images with --data, such as fashion_mnist_small."
        )
    check_data(options.data)


def check_output(options: argparse.Namespace) -> None:
    """Refuses a folder in use, and unless told otherwise one with a run."""
    check_free(options.output)
    if options.resume:
        return
    try:
        refuse_files(options.output, options.force)
    except FileExistsError as error:
        hint = ""
        if (Path(options.output) / RECIPE).exists():
            hint = " (--resume goes on with a run, --force overwrites it.)"
        raise UserError(f"{error}{hint}") from error


def _method_to_check(options: argparse.Namespace) -> str:
    """Returns the method; for `auto` one, as all have the same fields."""
    if options.method != AUTO:
        return options.method
    if options.recipe is not None and is_file(options.recipe):
        raise UserError(
            "A file of recipes is made for one method: give its name instead "
            "of auto, or leave out --recipe."
        )
    changes = recipe_changes(options)
    if any(name.startswith("method_args") for name in changes):
        raise UserError(
            "--set method_args is for one method: give its name instead of "
            "auto, or leave out the change."
        )
    having = (m for m in METHODS if options.recipe in read_recipes(m))
    return next(having, METHODS[0])


def _check_resume(options: argparse.Namespace) -> None:
    """Refuses other options than the run's."""
    if options.output is None:
        raise UserError("Give the run's folder with --output.")
    settings = read_settings(options.output)
    recipe = settings["recipe"]
    weights = settings.get("weights", {}).get("source")
    pairs = [
        ("--from", weights, options.weights or weights),
        ("method", recipe.get("method"), _method_given(options)),
        *(
            (f"--{name.replace('_', '-')}", settings.get(name), value)
            for name in FIXED
            if (value := getattr(options, _DESTS.get(name, name))) is not None
        ),
    ]
    wanted = recipe
    if options.recipe is not None:
        fields = find_recipe(recipe["method"], options.recipe)
        pairs.append(("--recipe", recipe["name"], fields["name"]))
        if is_file(options.recipe):
            if weights is not None:
                has_copy = "copy_weights" in recipe["method_args"]
                fields = changed(fields, going_on_changes(has_copy))
            wanted = {**recipe, **fields}
    wanted = changed(wanted, recipe_changes(options))
    pairs += [
        (
            f"--{name.replace('_', '-')}" if name in OPTIONS else name,
            recipe.get(name, DEFAULTS.get(name)),
            wanted.get(name, DEFAULTS.get(name)),
        )
        for name in FIELDS
        # More epochs are allowed, and the device has chosen a precision.
        if name != "epochs" and (name, wanted.get(name)) != BY_DEVICE
    ]
    for name, found, value in pairs:
        asked = (settings.get("data_asked"), _COMMIT.sub("", str(found)))
        if name == "--data" and value in asked:
            continue  # The commit was looked up when the run began.
        if found != value and not (name == "method" and value is None):
            raise UserError(
                f"The run in {options.output} has {name} {shown(found)}, not "
                f"{shown(value)}. A run continues as it began: leave out the "
                "option, or start another run."
            )


def _method_given(options: argparse.Namespace) -> str | None:
    """Returns the method if one was named."""
    return None if options.method == AUTO else options.method


def recipe_changes(options: argparse.Namespace) -> dict[str, Any]:
    """Returns the changes of the recipe, as `recipe_fields.changed` does."""
    changes = dict(parse_change(words) for words in options.changes)
    for name in OPTIONS:
        value = getattr(options, name)
        if value is None:
            continue
        if name in changes:
            raise UserError(
                f"--{name.replace('_', '-')} and --set {name} are the same: "
                "leave out one."
            )
        changes[name] = value
    return changes
