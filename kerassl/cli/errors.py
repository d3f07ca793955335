"""Separates mistakes of the user from bugs."""

import contextlib
import sys
from collections.abc import Iterator

from kerassl.cli.output import Lasting
from kerassl.reading import one_line


class UserError(Exception):
    """The request can't be fulfilled, for the reason in the message."""


def print_error(error: object) -> None:
    """Prints an error to stderr, in one line and without control characters.

    The message may quote untrusted files.
    """
    line = f"kerassl: error: {one_line(str(error))}"
    print(line, file=Lasting(sys.stderr))


def print_note(note: object) -> None:
    """Prints a note to stderr, likewise."""
    print(f"kerassl: {one_line(str(note))}", file=Lasting(sys.stderr))


@contextlib.contextmanager
def user_errors(*more: type[Exception]) -> Iterator[None]:
    """Turns a `ValueError` or `OSError` into a `UserError`.

    Wrap only calls that check the user's input: a `ValueError` from elsewhere
    is a bug, and should show its traceback.

    Args:
        *more: other errors that are the user's too, such as `ImportError`
            where a package is optional.

    Raises:
        UserError: with the error's message in one line.
        BrokenPipeError: if the output was closed, for `main`.
    """
    kinds: tuple[type[Exception], ...] = (ValueError, OSError, *more)
    try:
        yield
    except BrokenPipeError:
        raise
    except kinds as error:
        raise UserError(one_line(str(error))) from error
