"""What a process that decodes images does; `workers.py` starts it."""

import os
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from typing import Any

from kerassl.data.shared import MOST_FREE, Memory, size_of

_PATIENCE = 5.0


def serve(handle: int) -> None:
    """Carries out tasks until the other end of a socket is closed.

    Args:
        handle: int, the socket's file descriptor.
    """
    parent = os.getppid()
    # By device and inode. They are used again and again; each time that memory
    # is mapped, the kernel has to find every page of it.
    known: dict[tuple[int, int], Memory] = {}
    with Connection(handle) as connection:
        connection.send("ready")
        while True:
            # Another child of the parent's may keep the socket open.
            while not connection.poll(_PATIENCE):
                if os.getppid() != parent:
                    return
            try:
                task = _received(connection)
                memory = recv_handle(connection)
            except (EOFError, OSError):
                return
            failed = None
            if task is None:
                os.close(memory)
            else:
                shared = _mapped(known, memory, size_of(task.layout))
                failed = task.run(shared.arrays(task.layout))
            try:
                connection.send(failed)
            except OSError:
                return


def _mapped(
    known: dict[tuple[int, int], Memory], handle: int, size: int
) -> Memory:
    """Returns the memory of a handle; keeps some of that size."""
    status = os.fstat(handle)
    key = status.st_dev, status.st_ino
    if key in known:
        os.close(handle)
        return known[key]
    for other in list(known):
        if known[other].size != size or len(known) >= MOST_FREE:
            del known[other]
    known[key] = Memory(size, handle)
    return known[key]


def _received(connection: Connection) -> Any:
    """Returns a task, or `None` if a class in it isn't known here."""
    try:
        return connection.recv()
    except (EOFError, OSError):
        raise
    except Exception:
        return None
