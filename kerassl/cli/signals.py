"""Ctrl-C and SIGTERM stop a run after its current step."""

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kerassl.runs import Run

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def stop_on_signals(run: "Run") -> Iterator[list[int]]:
    """Makes the first SIGINT or SIGTERM stop the run, and the second kill it.

    On JAX a step takes over the buffers of the model's state, so an exception
    during a step would lose it. Therefore the handler only sets a flag, which
    `fit` checks after each step.

    Args:
        run: `kerassl.runs.Run`.

    Yields:
        A list to which the number of a received signal is appended.
    """
    received: list[int] = []
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def handle(number: int, frame: Any) -> None:
        received.append(number)
        for other in SIGNALS:
            signal.signal(other, signal.SIG_DFL)
        run.stop()
        # Unlike `print`, `os.write` is safe in a signal handler. It fails if
        # Ctrl-C ended the reader too, as in `kerassl ... |& tee log`.
        with contextlib.suppress(OSError):
            os.write(2, b"\nStopping after this step. Ctrl-C again aborts.\n")

    try:
        for number in SIGNALS:
            signal.signal(number, handle)
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
