"""Checks names, and suggests near ones."""

import difflib
from collections.abc import Iterable

from kerassl.reading import shown


def check_choice(
    kind: str,
    name: str,
    choices: Iterable[str],
    listed: Iterable[str] = (),
) -> None:
    """Checks that a name is among the choices.

    Args:
        kind: str, what is chosen, as in "There is no {kind} ...".
        name: str, the name to check.
        choices: the known names.
        listed: the names to list in the message, if all would be too many.

    Raises:
        ValueError: if it isn't; the message has the nearest names, and all.
    """
    names, listed = list(choices), list(listed)
    if name in names:
        return
    # So that "MoCo v2" and "BarlowTwins" are near.
    plain = {_plain(known): known for known in names}
    nearest = [
        plain[found]
        for found in difflib.get_close_matches(
            _plain(str(name)[:100]), plain, n=3, cutoff=0.4
        )
    ]
    raise ValueError(
        f"There is no {kind} {shown(name)}. "
        + (f"Nearest: {', '.join(nearest)}. " if nearest else "")
        + f"All: {', '.join(listed or names)}."
    )


def _plain(name: str) -> str:
    return "".join(filter(str.isalnum, name)).lower()
