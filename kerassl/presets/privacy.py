"""What may be published of a training, and a search for private paths."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kerassl.names import FROM_WEIGHTS, split_library

OWN = "own images"
_LABELS = "labels used"
# Data that others can load too: a data set of TFDS, or one in kerassl. A name
# with a slash needs `tfds:`, since it could be a local path.
_SHARED = re.compile(
    r"(?!folder:)(tfds:\w+(/[\w.+-]+)?|\w+)(:[\d*][\w.*]*)?(?<!\.np[yz])",
    re.ASCII | re.IGNORECASE,
)
_LOCAL = re.compile(
    r"""(?<![\w./\\])(?:
    /(?:home|Users|root|mnt|media|tmp|private|var|srv|opt|data|scratch
       |workspace|content|kaggle)/[^\s"'`,)\]]+
    |~/[^\s"'`,)\]]+
    |[A-Za-z]:\\[^\s"'`,)\]]+
    |file://[^\s"'`,)\]]+
    )|folder:(?!PATH\b)[^\s"'`,)\]]+""",
    re.VERBOSE,
)
# The Hub's ids of data sets that TFDS names differently.
_ON_THE_HUB = {
    "cifar10": "uoft-cs/cifar10",
    "cifar100": "uoft-cs/cifar100",
    "fashion_mnist": "zalando-datasets/fashion_mnist",
    "food101": "ethz/food101",
    "imagenet-1k": "ILSVRC/imagenet-1k",
    "imagenet2012": "ILSVRC/imagenet-1k",
    "mnist": "ylecun/mnist",
    "svhn_cropped": "ufldl-stanford/svhn",
}


def is_shared(data: str) -> bool:
    """Whether a name of data is that of a public data set, not a path.

    Args:
        data: str, as in `kerassl.data.load`, such as `"cifar10"` or
            `"folder:photos"`.

    Returns:
        bool.
    """
    return _SHARED.fullmatch(data) is not None


def public_names(specs: list[str]) -> dict[str, str]:
    """Returns the names of data sets in a preset.

    Args:
        specs: names as in `kerassl.data.load`, or "ONE and OTHER", of the data
            used for training and for scores.

    Returns:
        dict of each to a unique name without a path.
    """
    names = {
        spec: spec
        for spec in specs
        if all(is_shared(part) for part in spec.split(" and "))
    }
    local = [spec for spec in dict.fromkeys(specs) if spec not in names]
    for number, spec in enumerate(local, start=1):
        names[spec] = OWN if number == 1 else f"{OWN} {number}"
    return names


def public_scores(
    scores: Mapping[str, Mapping[str, Any]], names: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """Renames the data sets in a run's scores.

    Args:
        scores: dict of a protocol's name to its scores.
        names: dict of a data set's name to its public one.

    Returns:
        Such a dict.
    """
    renamed = {}
    for protocol, score in scores.items():
        score = dict(score)
        data = str(score.get("data", ""))
        if data in names:
            score["data"] = names[data]
            # The protocol names data that isn't the training's.
            protocol = protocol.replace(f", {data}", f", {names[data]}")
        renamed[protocol] = score
    return renamed


def public_spec(data: str) -> str:
    """Returns a data set's name for a published command."""
    if is_shared(data):
        return data
    suffix = Path(data).suffix.lower()
    return f"PATH{suffix}" if suffix in (".npz", ".npy") else "folder:PATH"


def starts(recipe: Mapping[str, Any]) -> list[str]:
    """Returns what came into a training with trained weights.

    Args:
        recipe: the fields of a recipe, from anybody.

    Returns:
        A list: `"weights"` to go on from, an `"encoder"` of KerasHub's
        presets, a `"teacher"`.
    """
    encoder = str(recipe.get("encoder"))
    found = {
        "weights": encoder == FROM_WEIGHTS,
        "encoder": split_library(encoder)[0] == "hub",
        "teacher": _arguments(recipe).get("teacher"),
    }
    return [name for name, is_there in found.items() if is_there]


def labels_row(used: bool | None) -> dict[str, str]:
    """Returns the row of a preset's `training` that `used_labels` reads."""
    known = "yes" if used else "no"
    return {_LABELS: "not known" if used is None else known}


def used_labels(
    recipe: Mapping[str, Any] | None, training: Mapping[str, Any]
) -> bool | None:
    """Returns whether a preset was trained with labels.

    Args:
        recipe: the fields of its recipe, from anybody, or `None`.
        training: its `training`.

    Returns:
        bool, also of the weights that it went on from, and of its teacher;
        `None` if it isn't known.
    """
    if recipe is None:
        return None
    if _arguments(recipe).get("supervised"):
        return True
    if _LABELS in training or starts(recipe):
        return {"yes": True, "no": False}.get(str(training.get(_LABELS)))
    return False


def _arguments(recipe: Mapping[str, Any]) -> dict[str, Any]:
    arguments = recipe.get("method_args")
    return arguments if isinstance(arguments, dict) else {}


def hub_id(data: str) -> str | None:
    """Returns the Hub's id of a data set, or `None`.

    Args:
        data: str, as in a preset's `datasets`.

    Returns:
        An id that the Hub accepts, without TFDS's config and version.
    """
    name = data
    if is_shared(data):
        name = re.split("[/:]", data.removeprefix("tfds:"))[0]
    name = _ON_THE_HUB.get(name, name)
    is_id = re.fullmatch(r"([\w-]+/)?[\w.-]+", name, re.ASCII)
    return name if is_id else None


def local_paths(text: str) -> Iterator[str]:
    """Yields the parts of a text that look like a local path.

    Args:
        text: str, of a file to be published.

    Yields:
        str, each once.
    """
    seen = set()
    here = "|".join(
        re.escape(str(path))
        for path in (Path.home(), Path.cwd())
        if len(path.parts) > 1
    )
    own = rf"(?<![\w./\\])(?:{here or '(?!)'})(?![\w.-])[^\s\"'`,)\]]*"
    for pattern in (_LOCAL, re.compile(own)):
        for match in pattern.finditer(text):
            if match[0] not in seen:
                seen.add(match[0])
                yield match[0]


def texts(value: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Yields `(key, text)` for each string of a JSON value, including keys."""
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, dict):
        for key, item in value.items():
            inner = f"{where}.{key}" if where else str(key)
            yield inner, str(key)
            yield from texts(item, inner)
    elif isinstance(value, list):
        for item in value:
            yield from texts(item, where)


def private_text(name: str, data: bytes) -> str | None:
    """Returns where a file mentions a local path, or `None`.

    Args:
        name: str, the file's.
        data: bytes, text or JSON.

    Returns:
        str, one line with the field and the path.
    """
    text = data.decode("utf-8", "replace")
    parts = texts(json.loads(text)) if name.endswith(".json") else [("", text)]
    for where, part in parts:
        for path in local_paths(part):
            file = f"{name}: `{where}`" if where else name
            return f"{file} names {path[:200]!r}"
    return None
