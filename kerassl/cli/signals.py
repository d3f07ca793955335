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

    An exception in the middle of a step would leave the model without its
    state on JAX, which has given it away to the step. So the handler only
    raises a flag that `fit` looks at after each step.

    Args:
        run: `kerassl.runs.Run`.

    Yields:
        A list that gets the number of the signal.
    """
    received: list[int] = []
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def handle(number: int, frame: Any) -> None:
        received.append(number)
        for other in SIGNALS:
            signal.signal(other, signal.SIG_DFL)
        # `print` may not be called again while it is at work; this may.
        os.write(2, b"\nStopping after this step. Ctrl-C again aborts.\n")
        run.stop()

    try:
        for number in SIGNALS:
            signal.signal(number, handle)
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
