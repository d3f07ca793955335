"""The fields of `kerassl.json`, and their strict reader.

A new field is added here (to the class, to `FORMS` and to `SINCE`, with a
higher `SCHEMA_VERSION`) and where it is shown, such as `card.py`. Presets of
older schemas still load: the field has its default there.
"""

import dataclasses
from typing import Any

from kerassl import reading
from kerassl.reading import (
    PLAIN_DICT,
    Form,
    check_form,
    integer,
    is_int,
    is_number,
    mapping,
    matching,
    one_of,
    optional,
    shown,
    text,
)
from kerassl.renamed import recipe_hash
from kerassl.value_range import MAX_CHANNELS, is_recorded

SCHEMA_VERSION = 2
# The schema that added a field. Those not listed are as old as schema 1.
SINCE: dict[str, int] = {"value_range": 2}

CARD = "README.md"
CONFIG = "config.json"
CONVERTER = "image_converter.json"
INFO = "kerassl.json"
METADATA = "metadata.json"
WEIGHTS = "model.weights.h5"
# The files of a preset.
FILES = (INFO, CONFIG, METADATA, CONVERTER, CARD, WEIGHTS)

# The license of a preset without one, as the Hub spells it.
UNLICENSED = "unknown"

# What the published model returns; see `PresetInfo`.
OUTPUTS = ("features", "map", "tokens", "class_token", "patches")


class PresetError(ValueError):
    """A preset was refused.

    The message says what was found and why it is refused, in one line without
    control characters, even if it quotes an untrusted file.
    """

    def __init__(self, message: str):
        super().__init__(reading.one_line(message))


def check(condition: Any, message: str) -> None:
    """Raises `PresetError` with the message unless the condition holds."""
    if not condition:
        raise PresetError(message)


def _empty() -> Any:
    return dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PresetInfo:
    """The content of a preset's `kerassl.json`, validated.

    Args:
        name: str, of 1 to 96 letters, digits, dots, hyphens and underscores.
        license: str, as the Hub spells it, such as `"apache-2.0"`, or
            `"unknown"` if none was given.
        description: str, the first paragraph of the model card.
        method: str, as in `kerassl.recipes.methods()` or the name of a class;
            or `None`.
        architecture: str, the encoder's name, such as `"resnet_nano"`.
        class_name: str, of the published model: `"Functional"` for a graph of
            core Keras layers, or the name of a KerasHub backbone.
        output: str, the output of that model: `"map"` `(N, h, w, D)` or
            `"tokens"` `(N, T, D)`, whose average is the features;
            `"class_token"`, `(N, T, D)`, whose first token is the features;
            `"patches"`, `(N, T, D)`, whose average without class and register
            tokens is the features; or `"features"` `(N, D)`.
        image_shape: `(height, width, channels)`; open sizes are `None`.
        features: int, the number of features D.
        parameters: int, the number of weights.
        normalization: `None` if the published model normalizes its images
            itself; else a dict with the lists `"scale"` and `"offset"`, one
            number per channel, for images in [0, 255].
        value_range: `None` for images in [0, 255]; or a dict with the lists
            `"low"` and `"high"`, the values that were mapped to 0 and 255 for
            the training, one number for all channels or one for each.
        datasets: names of the data sets it was trained on.
        scores: dict of protocol to results, such as
            `{"knn": {"accuracy": 0.91}}`.
        recipe: the fields of the `Recipe`, or `None`.
        recipe_hash: str, the recipe's hash, or `None`.
        training: dict of plain values: `"command"`, `"seconds"`, `"device"`
            and so on.
        versions: dict of package to version.
        files: dict of the name of each other file to its `"sha256"` and
            `"size"`. With those of `README.md`, a push detects edits.
        schema_version: int, always the current one: `from_dict` lifts older
            schemas.

    Raises:
        PresetError: if a field has another form; names it.
    """

    name: str
    license: str = UNLICENSED
    description: str = ""
    method: str | None = None
    architecture: str
    class_name: str
    output: str
    image_shape: tuple[int | None, int | None, int]
    features: int
    parameters: int
    normalization: dict[str, list[float]] | None = None
    value_range: dict[str, list[float]] | None = None
    datasets: tuple[str, ...] = ()
    scores: dict[str, dict[str, Any]] = _empty()
    recipe: dict[str, Any] | None = None
    recipe_hash: str | None = None
    training: dict[str, Any] = _empty()
    versions: dict[str, str] = _empty()
    files: dict[str, dict[str, Any]] = _empty()
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        """Checks all fields."""
        for field, form in FORMS.items():
            value = getattr(self, field)
            check_form(value, form, f"{INFO}: `{field}`", PresetError)
        if self.normalization is not None:
            for key, numbers in self.normalization.items():
                check(
                    len(numbers) == self.image_shape[-1],
                    f"{INFO}: `normalization` needs one {key} for each of the "
                    f"{self.image_shape[-1]} channels. Found: {shown(numbers)}",
                )
        if self.value_range is not None:
            count = len(self.value_range["low"])
            check(
                count in (1, self.image_shape[-1]),
                f"{INFO}: `value_range` needs one pair of numbers, or one for "
                f"each of the {self.image_shape[-1]} channels. Found: {count}",
            )
        for name in self.files:
            check(
                name in FILES and name != INFO,
                f"{INFO}: `files` names {shown(name)}, which is not a file of "
                f"a preset. Those are: {', '.join(FILES)}.",
            )
        if self.recipe is not None:
            check(
                self.recipe_hash == recipe_hash(self.recipe),
                f"{INFO}: `recipe_hash` isn't that of the recipe, "
                f"{recipe_hash(self.recipe)}.",
            )

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields, ready for JSON."""
        fields = dataclasses.asdict(self)
        fields["image_shape"] = list(self.image_shape)
        fields["datasets"] = list(self.datasets)
        return {"schema_version": fields.pop("schema_version"), **fields}

    @classmethod
    def from_dict(cls, fields: Any) -> "PresetInfo":
        """Reads the fields of a `kerassl.json`, of this schema or an older one.

        Raises:
            PresetError: if the schema is newer than this version of kerassl,
                or a field is missing, unknown in its schema, or has another
                form.
        """
        fields = migrate(fields)
        for name in ("image_shape", "datasets"):
            if isinstance(fields[name], list):
                fields[name] = tuple(fields[name])
        return cls(**fields)


def migrate(fields: Any) -> dict[str, Any]:
    """Lifts the fields of a preset of any schema to the current schema.

    A field that was added later is left out, so that `PresetInfo` fills in its
    default. To change or rename a field, convert the older form here.

    Args:
        fields: the content of a `kerassl.json`: exactly the fields of its
            `schema_version`.

    Returns:
        A dict of arguments for `PresetInfo`.

    Raises:
        PresetError: if the schema is newer than this version of kerassl, or a
            field is missing or unknown in its schema.
    """
    check(isinstance(fields, dict), f"{INFO} is not a JSON object.")
    schema = fields.get("schema_version")
    check(
        type(schema) is int and schema >= 1,
        f"{INFO}: `schema_version` must be a positive integer. "
        f"Found: {shown(schema)}",
    )
    check(
        schema <= SCHEMA_VERSION,
        f"{INFO} has schema {schema}, and this kerassl knows up to "
        f"{SCHEMA_VERSION}. Upgrade it: pip install --upgrade kerassl",
    )
    names = {
        field.name
        for field in dataclasses.fields(PresetInfo)
        if SINCE.get(field.name, 1) <= schema
    }
    missing, unknown = names - set(fields), set(fields) - names
    check(not missing, f"{INFO} lacks {_listed(missing)}.")
    check(not unknown, f"{INFO} has unknown fields: {_listed(unknown)}.")
    return {**fields, "schema_version": SCHEMA_VERSION}


def read_json(data: bytes | bytearray, name: str) -> Any:
    """Reads untrusted JSON.

    Raises:
        PresetError: as `kerassl.reading.read_json`.
    """
    return reading.read_json(data, name, PresetError)


def _listed(names: set) -> str:
    return ", ".join(name[:100] for name in sorted(names)[:10])


def is_shape(value: Any, open_size: bool = True) -> bool:
    """Whether a value is `[height, width, channels]`."""
    return (
        isinstance(value, (list, tuple))
        and len(value) == 3
        and all(
            is_int(v, 1, 8192) or (v is None and open_size) for v in value[:2]
        )
        and is_int(value[2], 1, MAX_CHANNELS)
    )


def _is_normalization(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and set(value) == {"scale", "offset"}
        and all(isinstance(v, list) for v in value.values())
        and all(is_number(n) for v in value.values() for n in v)
    )


def _is_scores(value: Any) -> bool:
    def is_share(score: Any) -> bool:
        return is_number(score) and 0 <= score <= 1

    return (
        PLAIN_DICT.is_valid(value)
        and all(isinstance(scores, dict) for scores in value.values())
        and all(is_share(s.get("accuracy", 0)) for s in value.values())
    )


def _is_files(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(file, dict)
        and set(file) == {"sha256", "size"}
        and HASH.is_valid(file["sha256"])
        and is_int(file["size"], 0, 2**34)
        for file in value.values()
    )


HASH = matching(r"[0-9a-f]{64}", "64 hexadecimal digits")
NAME = matching(
    r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}",
    "1 to 96 letters, digits, dots, hyphens and underscores, no dot first",
)
FORMS: dict[str, Form] = {
    "name": NAME,
    "license": matching(
        r"[a-z0-9][a-z0-9.+-]{0,63}",
        "a license as the Hub spells it, such as 'apache-2.0'",
    ),
    "description": text(10_000),
    "method": optional(matching(r"\w{1,64}", "a name")),
    "architecture": NAME,
    "class_name": matching(r"\w{1,64}", "a class's name"),
    "output": one_of(*OUTPUTS),
    "image_shape": Form(
        is_shape,
        "[height, width, channels], of 1 to 8192 pixels or null, and 1 to "
        f"{MAX_CHANNELS} channels",
    ),
    "features": integer(1, 2**20),
    "parameters": integer(0, 2**34),
    "normalization": optional(
        Form(_is_normalization, "the lists `scale` and `offset`")
    ),
    "value_range": optional(
        Form(
            is_recorded,
            "the lists `low` and `high`, of lower and higher numbers",
        )
    ),
    "datasets": Form(
        lambda v: isinstance(v, tuple) and all(map(text(200).is_valid, v)),
        "a list of names",
    ),
    "scores": Form(
        _is_scores,
        "a dict of protocol to a dict of results, accuracies in [0, 1]",
    ),
    "recipe": optional(PLAIN_DICT),
    "recipe_hash": optional(HASH),
    "training": PLAIN_DICT,
    "versions": mapping(matching(r"[\w.+!-]{1,64}", "a package's version")),
    "files": Form(_is_files, "a dict of name to `sha256` and `size`"),
}
