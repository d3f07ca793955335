"""Tells mistakes of the user from bugs of the program."""

import contextlib
import sys
from collections.abc import Iterator

from kerassl.reading import one_line


class UserError(Exception):
    """What the user asked for can't be; one line says why."""


def print_error(error: object) -> None:
    """Prints an error, in one line and without control characters.

    What it tells of may come from files of anybody.
    """
    print(f"kerassl: error: {one_line(str(error))}", file=sys.stderr)


def print_note(note: object) -> None:
    """Prints to stderr what is to be known, likewise."""
    print(f"kerassl: {one_line(str(note))}", file=sys.stderr)


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """Turns errors of checked arguments into a `UserError`.

    It goes around calls that check what the user gave, and no others: a
    `ValueError` from elsewhere is a bug, and shows its traceback.

    Raises:
        UserError: with the error's message on one line.
    """
    try:
        yield
    except (ValueError, OSError) as error:
        raise UserError(one_line(str(error))) from error
