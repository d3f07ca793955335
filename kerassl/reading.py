"""Reads what anybody may have written, and says in one line what is wrong.

JSON of others has one reader, `read_json`, which bounds it before it is parsed.
`Form`s say what values must be. `one_line` makes of any text what may be
printed, and `shown` of any value, however large.
"""

import collections
import json
import math
import re
import reprlib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

# Of one JSON file. Brackets, commas, quotes and backslashes are counted: all
# that takes memory or time has some.
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
    """Makes one line of a text that is safe to print on a terminal.

    Args:
        text: str, of anybody.
        longest: int, characters; the rest is cut off.

    Returns:
        The text, with each run of white space one blank, and control
        characters, and all else that doesn't print, as escapes.
    """
    cut = text[:longest] + (" ..." if len(text) > longest else "")
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode()
        for c in " ".join(cut.split())
    )


def shown(value: Any, longest: int = LONGEST_VALUE) -> str:
    """Shows a value of anybody in a message, without reading all of it."""
    try:
        text = _values.repr(value)
    except ValueError:  # An integer of more digits than Python shows.
        text = f"a very large {type(value).__name__}"
    return text if len(text) <= longest else f"{text[:longest]} ..."


# === JSON ===


def load_json(path: Path, finite: bool = True) -> Any:
    """Reads a JSON file that anybody may have written.

    Args:
        path: of the file, of 16 MB at most.
        finite: as in `read_json`.

    Returns:
        What it holds.

    Raises:
        ValueError: if it is not a regular file, too large, or refused by
            `read_json`.
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
    """Reads JSON that anybody may have written, of a size that was checked.

    Args:
        data: UTF-8.
        name: str, of the file, for messages.
        error: the class of errors to raise.
        finite: bool. Whether NaN and infinite numbers are refused: scores and
            histories may have some.

    Returns:
        What it holds: floats, integers of 64 bits, and nothing deeper than 32
        levels.

    Raises:
        ValueError: or rather `error`, if it is not such JSON; a key that is
            there twice is refused too.
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
    """Why JSON is refused."""


def _check_size(data: bytes | bytearray) -> None:
    """Refuses JSON that would take much memory or time, before it is parsed."""
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
    """Returns how deep JSON is, and its longest string, before it is parsed."""
    depth = deepest = longest = 0
    opened = None  # Where the string begins that we are in.
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
        is_valid: tells whether a value is that.
        words: str, what it must be, in words.
    """

    is_valid: Callable[[Any], bool]
    words: str


def check_form(
    value: Any, form: Form, name: str, error: type[ValueError] = ValueError
) -> None:
    """Refuses a value of another form.

    Args:
        value: anything.
        form: `Form`.
        name: str, of the value.
        error: the class of errors to raise.

    Raises:
        ValueError: or rather `error`, naming the value.
    """
    if not form.is_valid(value):
        raise error(f"{name} must be {form.words}. Found: {shown(value)}")


def check_fields(
    found: Any,
    forms: Mapping[str, Form],
    name: str,
    needed: Collection[str] = (),
) -> None:
    """Refuses a JSON object that lacks a field, or has one of another form.

    Fields without a form may be anything.

    Args:
        found: what a JSON file holds.
        forms: field to `Form`.
        name: str, of the object.
        needed: the fields that must be there.

    Raises:
        ValueError: naming the field.
    """
    if not isinstance(found, dict):
        raise ValueError(f"{name} holds no JSON object. Found: {shown(found)}")
    if missing := [field for field in needed if field not in found]:
        raise ValueError(f"{name} lacks {', '.join(missing)}.")
    for field, form in forms.items():
        if field in found:
            check_form(found[field], form, f"{name}: `{field}`")


def is_int(value: Any, low: int, high: int) -> bool:
    """Tells an integer in [low, high], which no bool is."""
    return type(value) is int and low <= value <= high


def is_number(value: Any) -> bool:
    """Tells a finite float, or an int of 64 bits."""
    if type(value) is int:
        return abs(value) < LARGEST_INTEGER
    return type(value) is float and math.isfinite(value)


def is_plain(value: Any, depth: int = 8) -> bool:
    """Tells values that JSON can hold, not too deep."""
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
    """A string that a regular expression matches."""
    return Form(
        lambda v: isinstance(v, str) and bool(re.fullmatch(pattern, v)), words
    )


def one_of(*values: Any) -> Form:
    """One of a few values, of its very type."""
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
    """A list of values of one form."""
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


# Of files of a run, which may have NaN.
ANY_NUMBER = Form(lambda value: type(value) in (int, float), "a number")
ANY_DICT = Form(lambda value: isinstance(value, dict), "a dict")
FLAG = Form(lambda value: isinstance(value, bool), "true or false")
PLAIN = Form(is_plain, "a plain value")
PLAIN_DICT = Form(
    lambda value: isinstance(value, dict) and is_plain(value),
    "a dict of plain values",
)
