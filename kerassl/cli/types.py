"""Types of arguments."""

import argparse


def positive(text: str) -> int:
    """Parses an integer of at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive integer")
    return value
