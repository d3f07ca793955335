"""How far an evaluation is, and how long it still takes."""

import collections
import contextlib
import sys
import time
from collections.abc import Callable, Iterator

# Told what is being measured, the length that is done, and the whole.
Show = Callable[[str, float, float], None]
# Seconds: before the first line, between lines, and that the pace is taken of.
FIRST, BETWEEN, PACE = 10, 30, 120


@contextlib.contextmanager
def time_left() -> Iterator[Show]:
    """Shows progress on stderr, in a bar if that is a terminal.

    Yields:
        A function to call with what is being measured, the length that is done,
        and the whole.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True, highlight=False, soft_wrap=True)
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
        # It would send what is written to a file or a pipe to the terminal.
        redirect_stdout=sys.stdout.isatty(),
    ) as bar:
        task = bar.add_task("", total=None)

        def show(name: str, done: float, total: float) -> None:
            bar.update(task, description=name, completed=done, total=total)

        yield show


class Lines:
    """Prints a line to stderr every half a minute."""

    def __init__(self) -> None:
        self.last = time.monotonic() + FIRST - BETWEEN
        self.seen: collections.deque[tuple[float, float]] = collections.deque()

    def show(self, name: str, done: float, total: float) -> None:
        """Prints a line, if it is time."""
        from kerassl.cli.progress import _duration

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
            line += f", about {_duration(left)} left"
        print(line, file=sys.stderr, flush=True)
