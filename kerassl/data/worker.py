"""What a process that decodes images does; `workers.py` starts it."""

import signal
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from typing import Any

from kerassl.data.shared import Memory, size_of


def serve(handle: int) -> None:
    """Carries out tasks until the other end of a socket is closed.

    Args:
        handle: int, the socket's file descriptor.
    """
    # Ctrl-C is for the process that gives the tasks.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Connection(handle) as connection:
        while True:
            try:
                task = _received(connection)
                memory = recv_handle(connection)
            except (EOFError, OSError):
                return
            failed = None
            if task is not None:
                shared = Memory(size_of(task.layout), memory)
                failed = task.run(shared.arrays(task.layout))
                del shared
            try:
                connection.send(failed)
            except OSError:
                return


def _received(connection: Connection) -> Any:
    """Returns a task, or `None` if a class in it isn't known here."""
    try:
        return connection.recv()
    except (EOFError, OSError):
        raise
    except Exception:
        return None
