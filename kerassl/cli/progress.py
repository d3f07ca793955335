"""The progress of a run: a bar, or a line per epoch."""

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import keras

from kerassl.cli.output import Lasting
from kerassl.cli.time_left import clock

if TYPE_CHECKING:
    from kerassl.runs import Run


@contextlib.contextmanager
def progress(run: "Run") -> Iterator[keras.callbacks.Callback]:
    """Shows the progress of a run, as a bar if the output is a terminal.

    If it can't be printed any more, the training goes on without.

    Args:
        run: `kerassl.runs.Run`.

    Yields:
        The Keras callback to train with.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    output: Any = Lasting(sys.stdout)
    console = Console(file=output, highlight=False, soft_wrap=True)
    if not console.is_terminal:
        yield ProgressLines(run)
        return
    columns = (
        TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}"),
        TextColumn("{task.fields[speed]} images/s"),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    with Progress(*columns, console=console) as bar:
        yield ProgressBar(run, bar)


class ProgressLines(keras.callbacks.Callback):
    """Prints a line at the end of each epoch.

    Args:
        run: `kerassl.runs.Run`.
    """

    def __init__(self, run: "Run"):
        super().__init__()
        self.run = run
        self.started = time.perf_counter()
        self.first = run.steps_done
        self.epoch_started = self.started
        self.epoch_first = 0

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Starts the clock."""
        self.epoch_started = time.perf_counter()
        self.epoch_first = self.run.steps_done

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Prints the epoch's metrics, the speed and the time left."""
        end = (epoch + 1) * self.run.steps_per_epoch
        if self.run.stopping:  # The epoch may be incomplete.
            return
        now = time.perf_counter()
        images = (end - self.epoch_first) * self.run.recipe.batch_size
        speed = images / (now - self.epoch_started)
        left = (now - self.started) / (end - self.first)
        left *= self.run.total_steps - end
        values = "  ".join(f"{k} {v:.4g}" for k, v in (logs or {}).items())
        self.show(
            f"epoch {epoch + 1}/{self.run.recipe.epochs}  {values}  "
            f"{speed:,.0f} images/s  {clock(left)} left"
        )

    def show(self, line: str) -> None:
        """Prints a line."""
        print(line, flush=True, file=Lasting(sys.stdout))


class ProgressBar(ProgressLines):
    """Moves a bar with each step, and prints a line for each epoch above it.

    Args:
        run: `kerassl.runs.Run`.
        bar: `rich.progress.Progress`.
    """

    # Lets Keras call `on_train_batch_end`, which waits for the loss, in a
    # separate thread.
    async_safe = True

    def __init__(self, run: "Run", bar: Any):
        super().__init__(run)
        self.bar = bar
        self.task = bar.add_task(
            "",
            total=run.total_steps,
            completed=run.steps_done,
            epoch=run.position.epoch + 1,
            epochs=run.recipe.epochs,
            loss="-",
            speed="-",
        )

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Moves the bar. `logs` holds means over the epoch so far."""
        steps = batch + 1
        seconds = time.perf_counter() - self.epoch_started
        self.bar.update(
            self.task,
            completed=self.epoch_first + steps,
            epoch=self.run.position.epoch + 1,
            loss=f"{(logs or {}).get('loss', float('nan')):.4f}",
            speed=f"{steps * self.run.recipe.batch_size / seconds:,.0f}",
        )

    def show(self, line: str) -> None:
        """Prints a line above the bar."""
        self.bar.console.print(line)
