"""The progress of a command, and the time left."""

import collections
import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from kerassl.cli.output import Lasting

# Called with the name of the current measurement, the cost done, and the total.
Show = Callable[[str, float, float], None]
# Seconds before the first line, between lines, and to average the speed over.
FIRST, BETWEEN, PACE = 10, 30, 120


@contextlib.contextmanager
def time_left() -> Iterator[Show]:
    """Shows progress on stderr, in a bar if that is a terminal.

    If it can't be printed any more, the command goes on without.

    Yields:
        A function to call with the name of the current measurement, the cost
        done so far, and the total.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    output: Any = Lasting(sys.stderr)
    console = Console(file=output, highlight=False, soft_wrap=True)
    if not console.is_terminal:
        yield Lines().show
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    with Progress(
        *columns,
        console=console,
        transient=True,
        speed_estimate_period=PACE,
        # If stdout is a file or a pipe, rich would redirect it to the terminal.
        redirect_stdout=sys.stdout.isatty(),
    ) as bar:
        task = bar.add_task("", total=None)

        def show(name: str, done: float, total: float) -> None:
            bar.update(task, description=name, completed=done, total=total)

        yield show


def clock(seconds: float) -> str:
    """Returns a duration as hours, minutes and seconds: `"1:02:03"`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


class Lines:
    """Prints a line to stderr every 30 seconds."""

    def __init__(self) -> None:
        self.last = time.monotonic() + FIRST - BETWEEN
        self.seen: collections.deque[tuple[float, float]] = collections.deque()

    def show(self, name: str, done: float, total: float) -> None:
        """Prints a line, if one is due."""
        now = time.monotonic()
        self.seen.append((now, done))
        while now - self.seen[0][0] > PACE and len(self.seen) > 2:
            self.seen.popleft()
        if now - self.last < BETWEEN:
            return
        self.last = now
        start, before = self.seen[0]
        line = f"{name}: {done / total:.0%} of all"
        if done > before:
            left = (total - done) * (now - start) / (done - before)
            line += f", about {clock(left)} left"
        print(line, file=Lasting(sys.stderr), flush=True)
