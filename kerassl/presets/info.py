"""What `kerassl.json` holds, and its strict reader."""

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Callable
from typing import Any

SCHEMA_VERSION = 1

CARD = "README.md"
CONFIG = "config.json"
CONVERTER = "image_converter.json"
INFO = "kerassl.json"
METADATA = "metadata.json"
WEIGHTS = "model.weights.h5"
# All that a preset is made of.
FILES = (INFO, CONFIG, METADATA, CONVERTER, CARD, WEIGHTS)

# What the published model returns, and how it becomes features `(N, D)`.
OUTPUTS = ("features", "map", "tokens", "class_token")


class PresetError(ValueError):
    """A preset was refused. The message says what was found, and why."""


def check(condition: Any, message: str) -> None:
    """Raises `PresetError` with the message unless the condition holds."""
    if not condition:
        raise PresetError(message)


@dataclasses.dataclass(frozen=True)
class PresetInfo:
    """The content of a preset's `kerassl.json`, validated.

    Args:
        name: str, of 1 to 96 letters, digits, dots, hyphens and underscores.
        license: str, as the Hub spells it, such as `"apache-2.0"`.
        description: str.
        method: str, as in `kerassl.recipes.methods()` or a class's name; or
            `None`.
        architecture: str, the encoder's name, such as `"resnet_nano"`.
        class_name: str, of the published model: `"Functional"` for a graph of
            core Keras layers, or a KerasHub backbone.
        output: str, what that model returns: `"map"` `(N, h, w, D)` or
            `"tokens"` `(N, T, D)`, of which features are the average,
            `"class_token"`, tokens of which the first is the features, or
            `"features"` `(N, D)`.
        image_shape: `(height, width, channels)`; open sizes are `None`.
        features: int, the number of features D.
        parameters: int, the number of weights.
        normalization: `None` if the published model normalises its images
            itself; else a dict of `"scale"` and `"offset"`, a list of a
            number for each channel, for images in [0, 255].
        datasets: names of the data sets it was trained on.
        scores: dict of a protocol's name to its results, such as
            `{"knn": {"accuracy": 0.91}}`.
        recipe: the fields of the `Recipe`, or `None`.
        recipe_hash: str, the recipe's hash, or `None`.
        training: dict of plain values: `"command"`, `"seconds"`, `"device"`
            and so on.
        versions: dict of a package's name to its version.
        files: dict of the name of each other file to its `"sha256"` and
            `"size"`.
        schema_version: int.

    Raises:
        PresetError: if a field has another form, with its name.
    """

    name: str
    license: str
    description: str
    method: str | None
    architecture: str
    class_name: str
    output: str
    image_shape: tuple[int | None, int | None, int]
    features: int
    parameters: int
    normalization: dict[str, list[float]] | None
    datasets: tuple[str, ...]
    scores: dict[str, dict[str, Any]]
    recipe: dict[str, Any] | None
    recipe_hash: str | None
    training: dict[str, Any]
    versions: dict[str, str]
    files: dict[str, dict[str, Any]]
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        """Checks all fields."""
        for field, (is_valid, form) in FORMS.items():
            value = getattr(self, field)
            check(
                is_valid(value),
                f"{INFO}: `{field}` must be {form}. Found: {_short(value)}",
            )
        if self.normalization is not None:
            for key, numbers in self.normalization.items():
                check(
                    len(numbers) == self.image_shape[-1],
                    f"{INFO}: `normalization` needs a {key} for each of the "
                    f"{self.image_shape[-1]} channels. Found: {numbers}",
                )
        for name in self.files:
            check(
                name in FILES and name != INFO,
                f"{INFO}: `files` names {_short(name)}, which is no file of a "
                f"preset. Those are: {', '.join(FILES)}.",
            )
        if self.recipe is not None:
            check(
                self.recipe_hash == _hash(self.recipe),
                f"{INFO}: `recipe_hash` isn't that of the recipe, "
                f"{_hash(self.recipe)}.",
            )

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields, ready for JSON."""
        fields = dataclasses.asdict(self)
        fields["image_shape"] = list(self.image_shape)
        fields["datasets"] = list(self.datasets)
        return {"schema_version": fields.pop("schema_version"), **fields}

    @classmethod
    def from_dict(cls, fields: Any) -> "PresetInfo":
        """Makes it of `to_dict`'s fields, all of them and no others.

        Raises:
            PresetError: if the schema is a newer one, a field is missing,
                unknown or of another form.
        """
        check(isinstance(fields, dict), f"{INFO} holds no JSON object.")
        found = fields.get("schema_version")
        check(
            type(found) is int and found >= 1,
            f"{INFO}: `schema_version` must be a positive integer. "
            f"Found: {_short(found)}",
        )
        check(
            found <= SCHEMA_VERSION,
            f"{INFO} is of schema {found}, and this kerassl knows up to "
            f"{SCHEMA_VERSION}. Upgrade it: pip install --upgrade kerassl",
        )
        names = {field.name for field in dataclasses.fields(cls)}
        missing, unknown = names - set(fields), set(fields) - names
        check(not missing, f"{INFO} lacks {_listed(missing)}.")
        check(not unknown, f"{INFO} has unknown fields: {_listed(unknown)}.")
        fields = dict(fields)
        for name in ("image_shape", "datasets"):
            if isinstance(fields[name], list):
                fields[name] = tuple(fields[name])
        return cls(**fields)


def read_json(data: bytes | bytearray, name: str) -> Any:
    """Reads JSON that anybody may have written.

    Raises:
        PresetError: if it is none, or has NaN, or is too deep.
    """

    def refuse(constant: str) -> None:
        raise PresetError(f"{name} holds {constant}, which is no JSON.")

    try:
        return json.loads(data.decode("utf-8"), parse_constant=refuse)
    except PresetError:
        raise
    except (ValueError, RecursionError) as error:
        raise PresetError(
            f"{name} is no plain JSON: {type(error).__name__}: "
            f"{_short(str(error))}"
        ) from error


def _hash(recipe: dict[str, Any]) -> str:
    # As `Recipe.hash`, of a recipe whose names this version may not know.
    text = json.dumps(recipe, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]} ..."


def _listed(names: set) -> str:
    return ", ".join(sorted(str(name) for name in names))[:200]


def _is_text(longest: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and len(value) <= longest


def _matches(pattern: str) -> Callable[[Any], bool]:
    return lambda v: isinstance(v, str) and bool(re.fullmatch(pattern, v))


def _optional(is_valid: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or is_valid(value)


def is_int(value: Any, low: int, high: int) -> bool:
    """Tells an integer in [low, high], which no bool is."""
    return type(value) is int and low <= value <= high


def is_number(value: Any) -> bool:
    """Tells a finite int or float."""
    return type(value) in (int, float) and math.isfinite(value)


def _is_image_shape(value: Any) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) == 3
        and all(v is None or is_int(v, 1, 8192) for v in value[:2])
        and is_int(value[2], 1, 4)
    )


def _is_normalization(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and set(value) == {"scale", "offset"}
        and all(isinstance(v, list) for v in value.values())
        and all(is_number(n) for v in value.values() for n in v)
    )


def _is_plain(value: Any, depth: int = 8) -> bool:
    """Tells values that JSON can hold, not too deep."""
    if isinstance(value, dict):
        return depth > 0 and all(
            isinstance(k, str) and _is_plain(v, depth - 1)
            for k, v in value.items()
        )
    if isinstance(value, (list, tuple)):
        return depth > 0 and all(_is_plain(v, depth - 1) for v in value)
    return value is None or isinstance(value, (bool, str)) or is_number(value)


def _is_plain_dict(value: Any) -> bool:
    return isinstance(value, dict) and _is_plain(value)


def _is_scores(value: Any) -> bool:
    def is_share(score: Any) -> bool:
        return is_number(score) and 0 <= score <= 1

    return (
        _is_plain_dict(value)
        and all(isinstance(scores, dict) for scores in value.values())
        and all(is_share(s.get("accuracy", 0)) for s in value.values())
    )


def _is_versions(value: Any) -> bool:
    is_version = _matches(r"[\w.+!-]{1,64}")
    return isinstance(value, dict) and all(
        isinstance(name, str) and is_version(v) for name, v in value.items()
    )


def _is_files(value: Any) -> bool:
    is_hash = _matches(r"[0-9a-f]{64}")
    return isinstance(value, dict) and all(
        isinstance(file, dict)
        and set(file) == {"sha256", "size"}
        and is_hash(file["sha256"])
        and is_int(file["size"], 0, 2**34)
        for file in value.values()
    )


_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}"
# Each field's check, and the check in words.
FORMS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "name": (
        _matches(_NAME),
        "1 to 96 letters, digits, dots, hyphens and underscores, no dot first",
    ),
    "license": (
        _matches(r"[a-z0-9][a-z0-9.+-]{0,63}"),
        "a licence as the Hub spells it, such as 'apache-2.0'",
    ),
    "description": (_is_text(10_000), "a string of 10,000 characters at most"),
    "method": (_optional(_matches(r"\w{1,64}")), "a name or null"),
    "architecture": (_matches(_NAME), "a name"),
    "class_name": (_matches(r"\w{1,64}"), "a class's name"),
    "output": (lambda v: v in OUTPUTS, f"one of {', '.join(OUTPUTS)}"),
    "image_shape": (
        _is_image_shape,
        "[height, width, channels], of 1 to 8192 pixels or null, and 1 to 4 "
        "channels",
    ),
    "features": (lambda v: is_int(v, 1, 2**20), "a positive integer"),
    "parameters": (lambda v: is_int(v, 0, 2**34), "an integer, 0 or more"),
    "normalization": (
        _optional(_is_normalization),
        "null, or the lists `scale` and `offset`",
    ),
    "datasets": (
        lambda v: isinstance(v, tuple) and all(map(_is_text(200), v)),
        "a list of names",
    ),
    "scores": (
        _is_scores,
        "a dict of protocol to a dict of results, accuracies in [0, 1]",
    ),
    "recipe": (_optional(_is_plain_dict), "null, or a dict of plain values"),
    "recipe_hash": (
        _optional(_matches(r"[0-9a-f]{64}")),
        "null, or 64 hexadecimal digits",
    ),
    "training": (_is_plain_dict, "a dict of plain values"),
    "versions": (_is_versions, "a dict of package to version"),
    "files": (_is_files, "a dict of name to `sha256` and `size`"),
}
