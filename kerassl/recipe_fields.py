"""The fields of recipes: read, checked and changed before Keras is loaded."""

import json
import math
import numbers
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kerassl.choices import check_choice
from kerassl.names import (
    FROM_WEIGHTS,
    METHODS,
    OPTIMIZERS,
    PRECISIONS,
    SCALINGS,
    VIEWS,
    check_encoder_name,
)
from kerassl.reading import (
    Form,
    check_fields,
    check_form,
    is_int,
    is_number,
    items,
    mapping,
    shown,
    text,
)
from kerassl.registry import RECIPES

_REAL = Form(
    lambda value: (
        isinstance(value, numbers.Real) and not isinstance(value, bool)
    ),
    "a number",
)
_SIZE = Form(
    lambda value: (
        value is None
        or _REAL.is_valid(value)
        or (
            isinstance(value, dict)
            and set(value) == {"share"}
            and _REAL.is_valid(value["share"])
            and 0 < value["share"] <= 1
        )
    ),
    "a number of pixels, or {share = S}, a share of the image size up to 1",
)
SCHEDULE: dict[str, Form] = {
    "scaling": text(),
    "warmup_epochs": _REAL,
    "warmup_share": _REAL,
    "final_share": _REAL,
    "milestones": items(_REAL),
    "constant": items(text()),
    "shares": mapping(_REAL),
    "layer_decay": _REAL,
    "frozen_epochs": mapping(_REAL),
    "frozen_share": _REAL,
}
# The fields that are dicts, with the forms of their values.
NESTED: dict[str, dict[str, Form]] = {
    "method_args": {},
    "views": {"preset": text(), "size": _SIZE},
    "optimizer": {"name": text(), "learning_rate": _REAL},
    "schedule": SCHEDULE,
    "normalization": {"mean": items(_REAL), "std": items(_REAL)},
}
#: All fields but the method.
FIELDS = (
    "name",
    "encoder",
    "epochs",
    "batch_size",
    *NESTED,
    "image_size",
    "seed",
    "precision",
)
#: Those that are options of `kerassl pretrain`. `--set` takes the others.
OPTIONS = (
    "encoder",
    "epochs",
    "batch_size",
    "image_size",
    "seed",
    "precision",
)
#: What the fields are that a recipe may leave out.
DEFAULTS: dict[str, Any] = {
    "image_size": None,
    "seed": 0,
    "precision": "float32",
    "normalization": {},
}
# What going on changes in a schedule. Measured by scripts/going_on.py;
# docs/going_on.md has its table.
_GOING_ON = {
    "shares": {"encoder": 0.1},
    "layer_decay": 0.75,
    "frozen_epochs": {"encoder": 1},
    "frozen_share": 0.2,
}
# The key of a nested field that names what takes the other keys.
_CHOOSERS = {"views": "preset", "optimizer": "name"}
_BARE_WORD = re.compile(r"[A-Za-z][\w.-]*")


# === Files ===


def read_recipes(method: str) -> dict[str, dict[str, Any]]:
    """Returns a method's recipes, by name.

    Args:
        method: str, one of `METHODS`.

    Raises:
        ValueError: if there is no such method, with the nearest ones.
    """
    check_choice("method", method, METHODS)
    return _read_tables(RECIPES / f"{method}.toml")


def find_recipe(method: str, name: str) -> dict[str, Any]:
    """Returns a recipe's fields.

    Args:
        method: str, one of `METHODS`.
        name: str, the name of one of its recipes; or the path of a TOML file
            of recipes, and after a colon the name of its table, which can be
            left out if there is only one: `"my.toml"`, `"my.toml:cpu"`.

    Returns:
        The fields of `Recipe`, complete but for those with defaults.

    Raises:
        ValueError: if there is no such method or recipe, with the nearest
            ones, or the file is not TOML.
        OSError: if the file can't be read.
    """
    if is_file(name):
        check_choice("method", method, METHODS)
        path, _, name = name.rpartition(".toml")
        path, name = f"{path}.toml", name.removeprefix(":")
        tables, kind = _read_tables(Path(path)), f"recipe in {path}"
        if not name:
            if len(tables) != 1:
                raise ValueError(
                    f"{path} has {len(tables)} recipes. Choose one, as in "
                    f"{path}:NAME. All: {', '.join(tables) or 'none'}."
                )
            (name,) = tables
    else:
        tables, kind = read_recipes(method), f"recipe of {method}"
    check_choice(kind, name, tables)
    own = {"method": method, "name": name}
    for key in set(own) & set(tables[name]):
        raise ValueError(
            f"The {kind} {name} sets {key} = {shown(tables[name][key])}. Leave "
            f"it out: it is {own[key]} here."
        )
    return {**own, **tables[name]}


def is_file(name: str) -> bool:
    """Returns whether `find_recipe` takes a name as the path of a file."""
    return re.search(r"\.toml(:[^/]*)?$", name) is not None


def _read_tables(path: Path) -> dict[str, dict[str, Any]]:
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not TOML: {error}") from error
    tables.pop("method", None)  # It is the registry's.
    for name, fields in tables.items():
        if not isinstance(fields, dict):
            raise ValueError(
                f"{path}: `{name}` must be in a table, such as [cpu]."
            )
    return tables


# === Checks ===


def check_recipe(fields: Mapping[str, Any]) -> None:
    """Checks all that is known before Keras is loaded.

    Args:
        fields: the fields of a recipe, by name.

    Raises:
        ValueError: if a field is unknown or missing, a name unknown, with the
            nearest ones, or a value of another type or out of its range.
    """
    for name in fields:
        check_choice("field of recipes", name, ("method", *FIELDS))
    for name, value in fields.items():
        if not _is_stored(value):
            raise ValueError(
                f"`{name}` must hold finite numbers, text, lists and dicts, as "
                f"JSON can. Received: {shown(value)}"
            )
    missing = {"method", *FIELDS} - set(DEFAULTS) - set(fields)
    if missing:
        raise ValueError(f"The recipe lacks {', '.join(sorted(missing))}.")
    check_form(fields["name"], text(), "`name`")
    for name, forms in NESTED.items():
        check_fields(fields.get(name, {}), forms, f"`{name}`")
    for name in fields["schedule"]:
        check_choice("field of `schedule`", name, SCHEDULE)
    if "learning_rate" not in fields["optimizer"]:
        raise ValueError("`optimizer` lacks learning_rate.")
    for kind, name, names in (
        ("method", fields["method"], METHODS),
        ("preset of views", fields["views"].get("preset", ""), VIEWS),
        ("optimizer", fields["optimizer"].get("name", ""), OPTIMIZERS),
        ("scaling", fields["schedule"].get("scaling", ""), SCALINGS),
    ):
        check_choice(kind, name, names)
    if fields.get("precision") is not None:
        check_choice("precision", fields["precision"], PRECISIONS)
    if fields["encoder"] != FROM_WEIGHTS:
        check_encoder_name(fields["encoder"])
    for name in fields.get("normalization", {}):
        check_choice("field of `normalization`", name, ("mean", "std"))
    schedule = fields["schedule"]
    if schedule.get("milestones") and schedule.get("warmup_epochs"):
        raise ValueError(
            "A schedule with `milestones` has no warmup. Received: "
            f"warmup_epochs={schedule['warmup_epochs']}"
        )
    for name, value, most in (
        ("layer_decay", schedule.get("layer_decay", 1), 1),
        ("frozen_share", schedule.get("frozen_share", 1), 1),
        *(
            (f"{name}.{part}", value, math.inf)
            for name in ("shares", "frozen_epochs")
            for part, value in schedule.get(name, {}).items()
        ),
    ):
        if not 0 <= value <= most:
            raise ValueError(
                f"`schedule.{name}` must be at least 0"
                + f" and at most {most}" * (most < math.inf)
                + f". Received: {shown(value)}"
            )
    for name in ("epochs", "batch_size", "image_size"):
        value = fields.get(name)
        if value is None and name == "image_size":
            continue
        if not is_int(value, 1, 2**32):
            raise ValueError(
                f"`{name}` must be a positive integer. Received: {shown(value)}"
            )
    seed = fields.get("seed", 0)
    if not is_int(seed, 0, 2**32 - 1):
        raise ValueError(
            f"`seed` must be an integer in [0, 2**32). Received: {shown(seed)}"
        )


def _is_stored(value: Any) -> bool:
    """Returns whether a run can record a value, and read it again."""
    if isinstance(value, Mapping):
        return all(isinstance(key, str) for key in value) and all(
            map(_is_stored, value.values())
        )
    if isinstance(value, (list, tuple)):
        return all(map(_is_stored, value))
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, (bool, str)) or is_number(value)


# === Changes ===


def changed(
    fields: Mapping[str, Any], changes: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns a recipe's fields with changes.

    Args:
        fields: the fields of a recipe, by name.
        changes: field to value, or, with dots, a path into nested fields to
            value, as in `{"optimizer.learning_rate": 0.8}`. Dicts are merged
            into those that are there. One that names another optimizer or
            other views replaces all of the field, since their arguments
            differ.

    Returns:
        A dict. Its values aren't checked, but for the names of fields.

    Raises:
        ValueError: if there is no such field, with the nearest ones, or a path
            leads into a value that is not a dict.
    """
    result = dict(fields)
    # Another optimizer or other views come first, whatever the order.
    for path, value in sorted(
        changes.items(), key=lambda change: not _chooses(*change)
    ):
        name, *keys = path.split(".")
        check_choice("field of recipes", name, FIELDS)
        if keys and name not in NESTED:
            raise ValueError(f"`{name}` is not a dict. Received: {path}")
        if name == "schedule" and keys:
            check_choice("field of `schedule`", keys[0], SCHEDULE)
        for key in reversed(keys):
            value = {key: value}
        result[name] = _replaced(name, result.get(name), value)
    return result


def going_on_changes(has_copy: bool) -> dict[str, Any]:
    """Returns the changes of a recipe that goes on from trained weights.

    Args:
        has_copy: bool. Whether the method has an argument `copy_weights`.

    Returns:
        A dict, as `changed` takes it.
    """
    arguments = {"copy_weights": True} if has_copy else {}
    return {
        "encoder": FROM_WEIGHTS,
        "schedule": _GOING_ON,
        "method_args": arguments,
    }


def _chooses(path: str, value: Any) -> bool:
    """Returns whether a change names an optimizer or views."""
    name, _, key = path.partition(".")
    chooser = _CHOOSERS.get(name)
    if key or not isinstance(value, dict):
        return key == chooser
    return chooser in value


def _replaced(name: str, old: Any, new: Any) -> Any:
    chooser = _CHOOSERS.get(name)
    if (
        chooser
        and isinstance(old, dict)
        and isinstance(new, dict)
        and new.get(chooser, old.get(chooser)) != old.get(chooser)
    ):
        return new
    return _merged(old, new)


def _merged(old: Any, new: Any) -> Any:
    if not isinstance(new, dict):
        return new
    result = dict(old) if isinstance(old, dict) else {}
    for key, value in new.items():
        result[key] = _merged(result.get(key), value)
    return result


def parse_change(words: str) -> tuple[str, Any]:
    """Parses `FIELD=VALUE` or `FIELD.KEY=VALUE`.

    Args:
        words: str. The value is TOML's; a bare word is a string.

    Returns:
        The path and the value.

    Raises:
        ValueError: if it has another form.
    """
    path, is_given, value = (part.strip() for part in words.partition("="))
    if not is_given or not all(path.split(".")):
        raise ValueError(
            "A change is FIELD=VALUE or FIELD.KEY=VALUE, such as "
            f"optimizer.learning_rate=0.8. Received: {shown(words)}"
        )
    try:
        parsed = tomllib.loads(f"value = {value}")
        if list(parsed) != ["value"]:
            raise ValueError("more than one value")
        return path, parsed["value"]
    except ValueError as error:
        if _BARE_WORD.fullmatch(value):
            return path, value
        raise ValueError(
            f"The value of {path} must be as in TOML, such as 0.8, true, "
            f'"text" or [0.2, 1.0]. Received: {shown(value)} ({error})'
        ) from error


def list_changes(
    fields: Mapping[str, Any], wanted: Mapping[str, Any]
) -> list[str] | None:
    """Returns the changes that make one recipe of another.

    Args:
        fields: the fields of a recipe, by name.
        wanted: those of another one of the same method.

    Returns:
        A list of `FIELD.KEY=VALUE`, as `parse_change` takes them; `None` if no
        changes do, since a key would have to be removed.
    """
    words = [
        f"{path}={_toml(value)}"
        for name in FIELDS
        for path, value in _differences(
            name, fields.get(name), wanted.get(name), _CHOOSERS.get(name)
        )
    ]
    try:
        result = dict(fields)
        for word in words:
            result = changed(result, dict([parse_change(word)]))
    except ValueError:
        return None
    return words if result == dict(wanted) else None


def _differences(
    path: str, old: Any, new: Any, chooser: str | None = None
) -> Iterator[tuple[str, Any]]:
    if old == new and type(old) is type(new):
        return
    if not isinstance(new, dict) or not new:
        yield path, new
        return
    if not isinstance(old, dict):
        old = {}
    if chooser and old.get(chooser) != new.get(chooser):
        old = {}
    # What names another optimizer or other views comes first.
    for key in sorted(new, key=lambda key: key != chooser):
        if key not in old or old[key] != new[key]:
            yield from _differences(f"{path}.{key}", old.get(key), new[key])


def _toml(value: Any) -> str:
    words = ("true", "false", "inf", "nan")
    if isinstance(value, str) and value not in words:
        if _BARE_WORD.fullmatch(value):
            return value
    return _toml_value(value)


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml_value, value))}]"
    if isinstance(value, dict):
        pairs = (
            f"{json.dumps(key)} = {_toml_value(item)}"
            for key, item in value.items()
        )
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return repr(value)
