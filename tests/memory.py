"""How much memory a part of a test takes."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

RESET = Path("/proc/self/clear_refs")


@contextlib.contextmanager
def memory_limit(most: float) -> Iterator[None]:
    """Fails if the block takes more memory at any time than it began with.

    The system keeps the most that the process ever had, so an earlier test may
    have had more. Linux can forget that; elsewhere the test is skipped.

    Args:
        most: float, the most bytes that may be added.
    """
    try:
        RESET.write_text("5")
        before = peak()
    except (OSError, IndexError):
        pytest.skip("the most memory that was used can't be set back")
    yield
    used = peak() - before
    assert used < most, f"{used:,} bytes"


def peak() -> int:
    """Returns the most bytes that the process had since it was set back."""
    text = Path("/proc/self/status").read_text()
    return 1024 * int(text.partition("VmHWM:")[2].split()[0])
