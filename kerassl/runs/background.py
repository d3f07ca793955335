"""Writes checkpoints in a thread, while the model trains on."""

import contextlib
import json
import random
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import keras

from kerassl import distributed
from kerassl.models import copied
from kerassl.reading import one_line


@contextlib.contextmanager
def background() -> Iterator["Background"]:
    """Yields a `Background`, and waits for its thread at the end."""
    with ThreadPoolExecutor(1, "kerassl-checkpoint") as thread:
        yield Background(thread)


class Background:
    """A thread that works with copies of a model, one after the other.

    The copy is made on the device, with the optimizer, and kept: the next call
    only copies values.

    Args:
        thread: `ThreadPoolExecutor`.
    """

    def __init__(self, thread: ThreadPoolExecutor):
        self._thread = thread
        self._work: Future | None = None
        self._config = ""
        self._copy: Any = None

    def wait(self) -> None:
        """Waits until nothing is left to do, and raises what went wrong."""
        work, self._work = self._work, None
        if work is not None:
            work.result()

    def start(
        self, work: Callable[[keras.Model], None], model: keras.Model
    ) -> bool:
        """Begins work with a copy of a model, after that of before.

        Args:
            work: callable that takes the copy.
            model: a compiled model.

        Returns:
            Whether it began. It warns if the copy can't be made.

        Raises:
            Exception: what went wrong in the work of before.
        """
        self.wait()
        try:
            distributed.on_one_device(lambda: self._follow(model))
            distributed.copy_variables(_state(model), _state(self._copy))
        except distributed.failures() as error:
            warnings.warn(
                "The training waits for its files, since the model can't be "
                f"copied (out of memory?): {one_line(str(error), 200)}"
            )
            self._copy, self._config = None, ""
            return False
        self._work = self._thread.submit(work, self._copy)
        return True

    def _follow(self, model: keras.Model) -> None:
        config = keras.saving.serialize_keras_object(model)
        text = json.dumps(config)
        # It changes if layers are frozen or thawed, for example.
        if text != self._config:
            # New layers take seeds from it, and the run needs the same again.
            state = random.getstate()
            self._copy, self._config = copied(config), text
            random.setstate(state)


def _state(model: keras.Model) -> list[keras.Variable]:
    return [
        *model.variables,
        *model.metrics_variables,
        *model.optimizer.variables,
    ]
