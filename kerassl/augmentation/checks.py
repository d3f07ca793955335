"""Checks of arguments, each with a message of one line."""

from typing import Any


def check_size(name: str, value: Any) -> None:
    """Raises a ValueError if the value isn't a number of pixels."""
    if not isinstance(value, int) or value < 1:
        refuse(name, value, "a positive number of pixels")


def check_between(name: str, value: float, low: float, high: float) -> None:
    """Raises a ValueError if the value isn't in [low, high]."""
    if not low <= value <= high:
        refuse(name, value, f"in [{low:g}, {high:g}]")


def check_strength(name: str, value: float) -> None:
    """Raises a ValueError if the value is negative."""
    if not value >= 0:
        refuse(name, value, "at least 0")


def check_range(
    name: str, value: tuple[float, float], high: float = float("inf")
) -> None:
    """Raises a ValueError if the value isn't (low, high) with 0 < low <= high.

    Args:
        name: str, of the argument.
        value: the pair.
        high: float, the largest value allowed.
    """
    if len(value) != 2 or not 0 < value[0] <= value[1]:
        refuse(name, value, "(low, high) with 0 < low <= high")
    if value[1] > high:
        refuse(name, value, f"at most {high:g}")


def check_interpolation(value: str) -> None:
    """Raises a ValueError if there is no such interpolation."""
    if value not in ("bilinear", "bicubic"):
        refuse("interpolation", value, "'bilinear' or 'bicubic'")


def refuse(name: str, value: Any, needed: str) -> None:
    """Raises a ValueError that says what is needed."""
    raise ValueError(f"`{name}` must be {needed}. Received: {value!r}")
