"""Threads that survive forks and pickling."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class Threads:
    """A thread pool that each process makes for itself, once it is needed.

    A forked process has no threads but the one that forked, so that the tasks
    of an inherited pool would wait for ever. A pool can't be pickled or copied
    either; a copy of this makes its own.

    Args:
        count: int or `None`, the number of threads; by default one for each
            CPU core.
    """

    def __init__(self, count: int | None = None):
        self.count = count or os.cpu_count() or 1
        self._pool: ThreadPoolExecutor | None = None
        self._process = 0

    def __getstate__(self) -> dict[str, Any]:
        """Returns what a copy needs, which isn't the pool."""
        return {"count": self.count, "_pool": None, "_process": 0}

    @property
    def pool(self) -> ThreadPoolExecutor:
        """The `ThreadPoolExecutor` of this process."""
        pool = self._pool
        if pool is None or self._process != os.getpid():
            pool = ThreadPoolExecutor(self.count)
            self._pool, self._process = pool, os.getpid()
        return pool

    def submit(self, task: Callable[..., Any], *values: Any) -> Future:
        """Starts a task; returns its `Future`."""
        return self.pool.submit(task, *values)

    def map(self, task: Callable[[Any], Any], values: Iterable) -> Iterator:
        """Yields the results of a task for each value, in order."""
        return self.pool.map(task, values)
