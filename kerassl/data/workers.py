"""Processes that decode images into shared memory.

Threads share one interpreter, which limits how many images a second they decode
together. A process has its own. It gets where the images are and what becomes
of them, and writes the pixels into memory that both processes see.
"""

import contextlib
import dataclasses
import logging
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.reduction import send_handle
from pathlib import Path

import numpy as np

from kerassl.data.cuts import Maker
from kerassl.data.records import MOST_AT_ONCE, Records
from kerassl.data.shared import Layout, Memories
from kerassl.data.threads import cores

# A process takes a third of a second to start.
FEWEST_IMAGES = 1000
_MOST_FAILED_STARTS = 3
# glibc gives the memory of each photo back to the kernel, which clears it for
# the next one. Up to so many bytes stay in the process.
_MEMORY = {"MALLOC_MMAP_THRESHOLD_": 2**25, "MALLOC_TRIM_THRESHOLD_": 2**26}
# These are for the process that gives the tasks; when it ends, so do others.
_ITS_SIGNALS = {signal.SIGINT, signal.SIGTERM}

# Not `-m`, and without the packages' `__init__`, which load Keras.
_BEGIN = """
import sys, types
sys.path[:] = {path!r}
for name, folder in {packages!r}:
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [folder]
from kerassl.data.worker import serve
serve({handle})
"""

_logger = logging.getLogger("kerassl")


@dataclasses.dataclass
class Task:
    """Some images of a batch, for another process.

    Args:
        layout: of the arrays of the whole batch.
        records: `Records`, only the images of this task.
        make: `Maker` for them.
        first: int, the row of the first one.
    """

    layout: Layout
    records: Records
    make: Maker
    first: int

    def run(self, arrays: dict[str, np.ndarray]) -> list[int]:
        """Decodes the images into their rows; returns those that failed."""
        failed = []
        for number in range(len(self.records)):
            row = self.first + number
            try:
                made = self.make(self.records.source(number), number)
            except Exception:
                failed.append(row)
                continue
            for array, value in zip(arrays.values(), made):
                array[row] = value
        return failed


class _EndedError(Exception):
    """A process ended before it answered."""


class Workers:
    """Threads, each of which has a process and waits for its results.

    Args:
        count: int > 0, the number of processes. They start on first use.
    """

    def __init__(self, count: int):
        self.count = count
        self._threads = ThreadPoolExecutor(count)
        self._own = threading.local()
        self._memories = Memories()
        self._all: list[tuple[subprocess.Popen, Connection]] = []
        self._failed_starts = 0

    def close(self) -> None:
        """Ends the processes, after the tasks that were given."""
        self._threads.shutdown()
        for process, connection in self._all:
            connection.close()
            process.wait()

    def make(
        self,
        records: Records,
        indices: Sequence[int] | np.ndarray,
        layout: Layout,
        make: Maker,
    ) -> tuple[dict[str, np.ndarray], list[int], dict[int, str]]:
        """Makes arrays of encoded images.

        Args:
            records: `Records`.
            indices: int array of shape `(n,)`, the images.
            layout: dict of names to a shape `(n, ...)` and a dtype.
            make: `Maker`, which returns a row of each array.

        Returns:
            A tuple: a dict of names to arrays; the rows that aren't filled;
            and other such rows, with the reason, whose images would end this
            process too.
        """
        memory, arrays = self._memories.take(layout)
        total = len(indices)
        chunk = max(1, min(MOST_AT_ONCE, -(-total // self.count)))

        def ask(first: int, stop: int) -> list[int]:
            task = Task(
                layout,
                records.select(np.asarray(indices[first:stop])),
                make.part(first, stop),
                first,
            )
            failed = self._ask(task, memory.handle)
            return list(range(first, stop)) if failed is None else failed

        def fill(first: int) -> tuple[list[int], dict[int, str]]:
            rows = range(first, min(first + chunk, total))
            try:
                return ask(rows.start, rows.stop), {}
            except _EndedError as error:
                _logger.warning("A process that decodes images %s.", error)
            # One by one, to learn whether it was an image, and which.
            failed: list[int] = []
            ended: dict[int, str] = {}
            for row in rows:
                try:
                    failed += ask(row, row + 1)
                except _EndedError as error:
                    ended[row] = f"the process that decodes it {error}, twice"
            return failed, ended

        left: list[int] = []
        lost: dict[int, str] = {}
        for failed, ended in self._threads.map(fill, range(0, total, chunk)):
            left += failed
            lost |= ended
        return arrays, left, lost

    def _ask(self, task: Task, memory: int) -> list[int] | None:
        """Returns what this thread's process answers; `None` if it can't."""
        if not hasattr(self._own, "process") and not self._begin():
            return None
        connection, process = self._own.connection, self._own.process
        try:
            connection.send(task)
            send_handle(connection, memory, process.pid)
            return connection.recv()
        except (EOFError, OSError) as error:
            vars(self._own).clear()
            connection.close()
            raise _EndedError(_ending(process)) from error

    def _begin(self) -> bool:
        """Starts the process of this thread; returns whether there is one."""
        if self._failed_starts >= _MOST_FAILED_STARTS:
            return False
        reason = ""
        try:
            process, connection = started = _start()
            self._all.append(started)
            try:
                connection.recv()
            except (EOFError, OSError):
                reason = _ending(process)
        except OSError as error:
            reason = str(error)
        if reason:
            self._failed_starts += 1
            ends = self._failed_starts == _MOST_FAILED_STARTS
            _logger.warning(
                "A process that decodes images doesn't start: it %s%s.",
                reason,
                "; threads do its work from now on" * ends,
            )
            return False
        self._own.process, self._own.connection = started
        return True


def _ending(process: subprocess.Popen) -> str:
    """Returns how a process ended, which has closed its connection."""
    try:
        code = process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        code = process.wait()
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"ended by {signal.Signals(-code).name}"
    return f"ended with status {code}"


def _start() -> tuple[subprocess.Popen, Connection]:
    """Starts a process; returns it, and the connection to it."""
    ours, theirs = socket.socketpair()
    root = Path(__file__).parents[1]
    packages = [("kerassl", str(root)), ("kerassl.data", str(root / "data"))]
    code = _BEGIN.format(
        path=sys.path, packages=packages, handle=theirs.fileno()
    )
    # A blocked signal stays so in a new process, from its first moment on.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ITS_SIGNALS)
    try:
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-P", "-c", code],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={n: str(v) for n, v in _MEMORY.items()} | os.environ,
            )
    except BaseException:
        ours.close()
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return process, Connection(ours.detach())


_lock = threading.Lock()
# The workers, and the process that they belong to.
_started: tuple[int, Workers] | None = None


def workers() -> Workers | None:
    """Returns the workers of this process, or `None` where threads decode.

    That is on Windows, in programs without a Python interpreter of their own,
    and in processes of `multiprocessing`, such as the workers of a
    `DataLoader`: there would be too many.
    """
    global _started
    if sys.platform == "win32" or multiprocessing.parent_process():
        return None
    if getattr(sys, "frozen", False) or not sys.executable:
        return None
    with _lock:
        if _started is None or _started[0] != os.getpid():
            # On one machine, torchrun's processes share the cores.
            share = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
            _started = os.getpid(), Workers(max(1, cores() // max(1, share)))
        return _started[1]
