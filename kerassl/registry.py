"""The methods, read from the `[method]` tables of `kerassl/recipes/*.toml`.

Everything that enumerates methods takes them from here: the command line,
recipes, scripts and the documentation. It needs only the standard library, so
that the command line can use it before Keras is loaded, and mkdocs without it.
"""

import dataclasses
import functools
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

RECIPES = Path(__file__).parent / "recipes"
#: The families, in the order of the documentation.
FAMILIES = (
    "contrastive",
    "bootstrapping",
    "self_distillation",
    "regularization",
    "masked",
    "predictive",
    "distillation",
)


@dataclasses.dataclass(frozen=True)
class MethodEntry:
    """A method, as its `[method]` table declares it.

    Args:
        name: str, the stem of its file of recipes, such as `"simclr_v2"`.
        class_name: str, the class in `kerassl.methods`.
        family: str, one of `FAMILIES`.
        title: str, its name in the documentation.
        paper: str, authors and year.
        url: str, of the paper.
        page: str, the stem of its page in `docs/methods/`.
        loss: str, a few words for the table of methods.
        needs: str, likewise.
        default: bool. Whether `from_recipe` of the class takes the recipes of
            this entry; `False` for all but one entry of a class.
        cost: what `scripts/cost_model.py` counts: `reduced` and `gathered`,
            the rows and columns of what devices exchange of each image in a
            step, and `largest`, those of the largest array across the batch.
            Each is a sum such as `"1+queue_size"` of numbers, attributes of
            the model, and what the script knows: `batch`, `views`, `width`,
            `teacher_width` and `shuffled_pixels`.
    """

    name: str
    class_name: str
    family: str
    title: str
    paper: str
    url: str
    page: str
    loss: str
    needs: str
    default: bool = True
    cost: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Checks the family and the year."""
        if self.family not in FAMILIES:
            raise ValueError(
                f"`family` must be one of {', '.join(FAMILIES)}. Received: "
                f"{self.family}"
            )
        if not self.paper[-4:].isdigit():
            raise ValueError(
                f"`paper` must end with its year. Received: {self.paper}"
            )

    @property
    def year(self) -> int:
        """The paper's year."""
        return int(self.paper[-4:])


@functools.cache
def entries() -> dict[str, MethodEntry]:
    """Returns the methods by name, ordered by family, year and paper.

    Raises:
        ValueError: if a file has no `[method]` table, or a broken one.
    """
    found = [_read(path) for path in RECIPES.glob("*.toml")]
    found.sort(key=lambda e: (FAMILIES.index(e.family), e.year, e.url, e.name))
    return {entry.name: entry for entry in found}


def _read(path: Path) -> MethodEntry:
    # The table is at the head of the file: the recipes needn't be parsed.
    head, _, _ = path.read_text(encoding="utf-8").partition("\n[cpu]")
    fields = tomllib.loads(head).get("method")
    if fields is None:
        raise ValueError(f"{path} has no [method] table before its recipes.")
    try:
        fields["class_name"] = fields.pop("class")
        return MethodEntry(name=path.stem, **fields)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"[method] of {path}: {error}") from error


def entries_of(cls: type) -> list[MethodEntry]:
    """Returns the entries of a method's class, the default one first.

    Args:
        cls: a class of `kerassl.methods`, or a subclass of one.

    Returns:
        A list, empty if neither the class nor a base class is registered.
    """
    for base in cls.__mro__:
        if base.__module__.startswith("kerassl.methods."):
            found = [
                e for e in entries().values() if e.class_name == base.__name__
            ]
            if found:
                return sorted(found, key=lambda entry: not entry.default)
    return []


# Functions of `kerassl.recipes` and `kerassl.presets` for methods, which import
# neither.
_links: dict[str, Callable[..., Any]] = {}


def link(**functions: Callable[..., Any]) -> None:
    """Provides functions to code that can't import their module.

    Args:
        **functions: `build`, for `SelfSupervisedModel.from_recipe`,
            `optimizer`, for `compile("auto")`, `load_encoder`, for its
            `weights` and for teachers, and `save_preset`, for `save_to_preset`.
    """
    _links.update(functions)


def linked(name: str) -> Callable[..., Any]:
    """Returns what `link` provided under a name."""
    if name not in _links:
        raise RuntimeError("Import kerassl.recipes and kerassl.presets first.")
    return _links[name]
