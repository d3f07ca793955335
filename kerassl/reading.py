"""Reads untrusted JSON and text, and reports errors in one line.

`read_json` is the only reader of untrusted JSON, and bounds it before parsing.
A `Form` says what a value must be. `one_line` makes any text safe to print, and
`shown` any value, however large.
"""

import collections
import json
import math
import re
import reprlib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

# Limits of a JSON file. Marks are brackets, commas, quotes and backslashes:
# whatever takes memory or time has some.
MOST_MARKS = 2**20
MOST_DEPTH = 32
LONGEST_TEXT = 2**17
LONGEST_NUMBER = 40
LARGEST_INTEGER = 2**63
MOST_BYTES = 16 * 1024**2

LONGEST_LINE = 2000
LONGEST_VALUE = 200

_values = reprlib.Repr()
_values.maxlevel = 4
_values.maxstring = _values.maxother = LONGEST_VALUE
_values.maxdict = _values.maxlist = _values.maxtuple = 16


def one_line(text: str, longest: int = LONGEST_LINE) -> str:
    """Returns a text as one line that is safe to print on a terminal.

    Args:
        text: str, untrusted.
        longest: int, the number of characters to keep.

    Returns:
        The text with each run of white space as one space, and unprintable
        characters escaped.
    """
    cut = text[:longest] + (" ..." if len(text) > longest else "")
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode()
        for c in " ".join(cut.split())
    )


def shown(value: Any, longest: int = LONGEST_VALUE) -> str:
    """Returns an untrusted value as a short string, for messages."""
    try:
        text = _values.repr(value)
    except ValueError:  # An integer of more digits than Python shows.
        text = f"a very large {type(value).__name__}"
    return text if len(text) <= longest else f"{text[:longest]} ..."


# === JSON ===


def load_json(path: Path, finite: bool = True) -> Any:
    """Reads an untrusted JSON file.

    Args:
        path: path of a file of at most 16 MB.
        finite: see `read_json`.

    Returns:
        The parsed value.

    Raises:
        ValueError: if it is not a regular file, is too large, or is refused
            by `read_json`.
    """
    if not path.is_file():
        raise ValueError(f"{path} is not a regular file.")
    with path.open("rb") as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ValueError(f"{path} has more than {MOST_BYTES:,} bytes.")
    return read_json(data, str(path), finite=finite)


def read_json(
    data: bytes | bytearray,
    name: str,
    error: type[ValueError] = ValueError,
    finite: bool = True,
) -> Any:
    """Reads untrusted JSON. The caller bounds its size.

    Args:
        data: UTF-8.
        name: str, the name of the file, for messages.
        error: the exception class to raise.
        finite: bool. Whether to refuse NaN and infinite numbers, which scores
            and histories may contain.

    Returns:
        The parsed value, with integers of at most 64 bits and at most 32
        levels of nesting.

    Raises:
        ValueError: as `error`, if it is not such JSON, or has a key twice.
    """

    def refuse(why: str) -> None:
        raise _Refused(why)

    def integer(text: str) -> int:
        if len(text) > LONGEST_NUMBER or abs(int(text)) >= LARGEST_INTEGER:
            refuse(f"the number {shown(text, 40)} is too large.")
        return int(text)

    def real(text: str) -> float:
        is_finite = math.isfinite(float(text))
        if len(text) > LONGEST_NUMBER or (finite and not is_finite):
            refuse(f"the number {shown(text, 40)} is too large or too long.")
        return float(text)

    def constant(text: str) -> float:
        if finite:
            refuse(f"it holds {text}.")
        return float(text)

    def fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            counts = collections.Counter(key for key, _ in pairs)
            refuse(f"{shown(counts.most_common(1)[0][0])} is there twice.")
        return found

    try:
        _check_size(data)
        return json.loads(
            data.decode("utf-8"),
            parse_int=integer,
            parse_float=real,
            parse_constant=constant,
            object_pairs_hook=fields,
        )
    except (ValueError, RecursionError) as cause:
        reason = str(cause)
        if not isinstance(cause, _Refused):
            reason = f"{type(cause).__name__}: {reason}"
        raise error(f"{name} is not plain JSON: {reason}") from cause


class _Refused(ValueError):
    """The reason why JSON is refused."""


def _check_size(data: bytes | bytearray) -> None:
    """Raises for JSON that would take much memory or time to parse."""
    marks = sum(data.count(mark) for mark in b'[]{},"\\')
    if marks > MOST_MARKS:
        raise _Refused(
            f"it has {marks:,} brackets, commas and quotes; {MOST_MARKS:,} are "
            "the most."
        )
    depth, longest = _measure(data)
    if depth > MOST_DEPTH:
        raise _Refused(
            f"it is {depth:,} levels deep; {MOST_DEPTH} are the most."
        )
    if longest > LONGEST_TEXT:
        raise _Refused(
            f"a string has {longest:,} bytes; {LONGEST_TEXT:,} are the most."
        )


def _measure(data: bytes | bytearray) -> tuple[int, int]:
    """Returns the depth and the longest string of JSON, without parsing it."""
    depth = deepest = longest = 0
    opened = None  # The start of the current string.
    for match in re.finditer(rb'\\.|["\[\]{}]', data):
        mark = match[0]
        if mark == b'"':
            if opened is None:
                opened = match.end()
            else:
                longest = max(longest, match.start() - opened)
                opened = None
        elif opened is None and mark in (b"[", b"{"):
            depth += 1
            deepest = max(deepest, depth)
        elif opened is None and mark in (b"]", b"}"):
            depth -= 1
    return deepest, longest


# === Forms ===


class Form(NamedTuple):
    """What a value must be.

    Attributes:
        is_valid: function from a value to a bool.
        words: str, a description for messages.
    """

    is_valid: Callable[[Any], bool]
    words: str


def check_form(
    value: Any, form: Form, name: str, error: type[ValueError] = ValueError
) -> None:
    """Checks that a value has a form.

    Args:
        value: any value.
        form: `Form`.
        name: str, what the message calls the value.
        error: the exception class to raise.

    Raises:
        ValueError: as `error`, if it doesn't.
    """
    if not form.is_valid(value):
        raise error(f"{name} must be {form.words}. Found: {shown(value)}")


def check_fields(
    found: Any,
    forms: Mapping[str, Form],
    name: str,
    needed: Collection[str] = (),
) -> None:
    """Checks that a JSON object has all fields, each of its form.

    Fields without a form may be anything.

    Args:
        found: the parsed value.
        forms: dict from field to `Form`.
        name: str, what messages call the object.
        needed: the required fields.

    Raises:
        ValueError: if it is not an object, lacks a field, or a field has
            another form.
    """
    if not isinstance(found, dict):
        raise ValueError(f"{name} is not a JSON object. Found: {shown(found)}")
    if missing := [field for field in needed if field not in found]:
        raise ValueError(f"{name} lacks {', '.join(missing)}.")
    for field, form in forms.items():
        if field in found:
            check_form(found[field], form, f"{name}: `{field}`")


def is_int(value: Any, low: int, high: int) -> bool:
    """Returns whether a value is an integer in [low, high], and not a bool."""
    return type(value) is int and low <= value <= high


def is_number(value: Any) -> bool:
    """Returns whether a value is a finite float or an int of 64 bits."""
    if type(value) is int:
        return abs(value) < LARGEST_INTEGER
    return type(value) is float and math.isfinite(value)


def is_plain(value: Any, depth: int = 8) -> bool:
    """Returns whether JSON can hold a value, with limited nesting."""
    if isinstance(value, dict):
        return depth > 0 and all(
            isinstance(k, str) and is_plain(v, depth - 1)
            for k, v in value.items()
        )
    if isinstance(value, (list, tuple)):
        return depth > 0 and all(is_plain(v, depth - 1) for v in value)
    return value is None or isinstance(value, (bool, str)) or is_number(value)


def integer(low: int, high: int = LARGEST_INTEGER - 1) -> Form:
    """An integer in [low, high]."""
    bounds = f"{low:,} or more"
    if high < LARGEST_INTEGER - 1:
        bounds = f"in [{low:,}, {high:,}]"
    return Form(lambda value: is_int(value, low, high), f"an integer {bounds}")


def number(low: float = -math.inf, high: float = math.inf) -> Form:
    """A finite number in [low, high]."""
    bounds = "" if low == -math.inf else f" in [{low:g}, {high:g}]"
    return Form(
        lambda value: is_number(value) and low <= value <= high,
        f"a finite number{bounds}",
    )


def text(longest: int = 1000) -> Form:
    """A string."""
    return Form(
        lambda value: isinstance(value, str) and len(value) <= longest,
        f"a string of {longest:,} characters at most",
    )


def matching(pattern: str, words: str) -> Form:
    """A string that matches a regular expression."""
    return Form(
        lambda v: isinstance(v, str) and bool(re.fullmatch(pattern, v)), words
    )


def one_of(*values: Any) -> Form:
    """One of a few values, of exactly its type."""
    return Form(
        lambda v: any(type(v) is type(x) and v == x for x in values),
        " or ".join(map(repr, values)),
    )


def optional(form: Form) -> Form:
    """A form, or null."""
    return Form(
        lambda value: value is None or form.is_valid(value),
        f"null, or {form.words}",
    )


def either(*forms: Form) -> Form:
    """One of some forms."""
    return Form(
        lambda value: any(form.is_valid(value) for form in forms),
        ", or ".join(form.words for form in forms),
    )


def items(form: Form, least: int = 0, most: int = 4096) -> Form:
    """A list whose values all have one form."""
    size = str(least) if least == most else f"{least} to {most}"
    return Form(
        lambda value: (
            isinstance(value, (list, tuple))
            and least <= len(value) <= most
            and all(map(form.is_valid, value))
        ),
        f"a list of {size}, each {form.words}",
    )


def mapping(form: Form) -> Form:
    """A dict of strings to values of one form."""
    return Form(
        lambda value: (
            isinstance(value, dict)
            and all(isinstance(key, str) for key in value)
            and all(map(form.is_valid, value.values()))
        ),
        f"a dict, each value {form.words}",
    )


# For the files of a run, which may contain NaN.
ANY_NUMBER = Form(lambda value: type(value) in (int, float), "a number")
ANY_DICT = Form(lambda value: isinstance(value, dict), "a dict")
FLAG = Form(lambda value: isinstance(value, bool), "true or false")
PLAIN_DICT = Form(
    lambda value: isinstance(value, dict) and is_plain(value),
    "a dict of plain values",
)
