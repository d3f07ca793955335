"""Threads that survive forks and pickling."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypedDict, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
V = TypeVar("V")


def cores() -> int:
    """Returns how many CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _State(TypedDict):
    count: int
    _pool: None
    _process: int


class Threads:
    """A thread pool that each process creates for itself on first use.

    A forked process has only the thread that forked, so that tasks of an
    inherited pool would wait forever. Pools can't be pickled or copied either;
    a copy of this object makes its own.

    Args:
        count: int > 0, the number of threads; by default one for each CPU core
            that this process may use.

    Example:
    ```python
    threads = Threads()
    list(threads.map(abs, [-1, 2]))  # [1, 2]
    ```
    """

    def __init__(self, count: int | None = None):
        self.count = count or cores()
        self._pool: ThreadPoolExecutor | None = None
        self._process = 0

    def __getstate__(self) -> _State:
        """Returns the state without the pool."""
        return {"count": self.count, "_pool": None, "_process": 0}

    @property
    def pool(self) -> ThreadPoolExecutor:
        """The `ThreadPoolExecutor` of this process."""
        pool = self._pool
        if pool is None or self._process != os.getpid():
            pool = ThreadPoolExecutor(self.count)
            self._pool, self._process = pool, os.getpid()
        return pool

    def submit(
        self, task: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]:
        """Starts a task; returns its `Future`."""
        return self.pool.submit(task, *args, **kwargs)

    def map(self, task: Callable[[V], T], values: Iterable[V]) -> Iterator[T]:
        """Yields the results of a task for each value, in order."""
        return self.pool.map(task, values)
