"""Tells mistakes of the user from bugs of the program."""

import contextlib
from collections.abc import Iterator


class UserError(Exception):
    """What the user asked for can't be; one line says why."""


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
        raise UserError(" ".join(str(error).split())) from error
