"""The progress of a long evaluation, on disk and on the screen."""

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kerassl.environment import environment
from kerassl.files import write_text
from kerassl.reading import check_fields, load_json
from kerassl.run_folder import RECIPE, SCORE

_logger = logging.getLogger("kerassl")

# Called with the number of images the encoder has processed since the last
# call; an image of a training step counts as `TRAINING` images.
Seen = Callable[[float], None]
TRAINING = 3
Scores = dict[str, Any]
# Returns the scores of a name in the plan, and measures them if necessary.
Measure = Callable[[str, Callable[[Seen], Scores]], Scores]


def ignore(images: float) -> None:
    """Does nothing."""


def measure_now(name: str, measure: Callable[[Seen], Scores]) -> Scores:
    """Measures without storing anything."""
    return measure(ignore)


class Journal:
    """Stores each measurement, so that an interrupted evaluation can resume.

    Every measurement is written immediately, and the next evaluation with the
    same file reads it.

    Args:
        path: path of the file; `None` stores nothing.
        plan: dict from the name of each measurement to its cost, in images
            that the encoder processes.
        show: called with the name of the current measurement, the cost done
            so far, and the total, without what was measured before.
    """

    def __init__(
        self,
        path: Path | None,
        plan: Mapping[str, float],
        show: Callable[[str, float, float], None],
    ):
        self.path = path
        self.plan = plan
        self.show = show
        kept = {} if path is None else _read(path)
        self.scores = {name: kept[name] for name in plan if name in kept}
        self.known = len(self.scores)
        self.done = 0.0
        self.total = sum(plan[name] for name in plan if name not in kept)

    def measure(self, name: str, measure: Callable[[Seen], Scores]) -> Scores:
        """Returns the scores of one measurement.

        Args:
            name: str, a name of the plan.
            measure: returns the scores. It receives a function to call with
                the number of images that the encoder has processed.
        """
        if name in self.scores:
            return self.scores[name]
        start, end = self.done, self.done + self.plan[name]

        def seen(images: float) -> None:
            self.done = min(self.done + images, end)
            self.show(name, self.done, self.total)

        self.show(name, start, self.total)
        self.scores[name] = measure(seen)
        self._write()
        seen(end)
        return self.scores[name]

    def _write(self) -> None:
        if self.path is None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_text(self.path, json.dumps(self.scores))
        except OSError as error:
            self.path = None
            _logger.warning(
                "The evaluation can't be resumed if it is interrupted, since "
                "measurements can't be stored: %s",
                error,
            )

    def remove(self) -> None:
        """Removes the file."""
        if self.path is not None:
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)


def journal_path(source: str | Path, *settings: Any) -> Path:
    """Returns the path of an evaluation's journal.

    Args:
        source: the encoder's source. The journal of a run is stored in its
            folder, and any other in the user's cache.
        *settings: everything that scores depend on, identified by `repr`.
    """
    folder = Path(source)
    if not (folder / RECIPE).is_file():
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(cache) / "kerassl"
    known = environment()
    words = repr((known["versions"], known["device"], settings))
    digest = hashlib.sha256(words.encode()).hexdigest()
    return folder / f".evaluation-{digest[:16]}.json"


def _read(path: Path) -> dict[str, Scores]:
    """Returns the stored scores; none if the file is missing or broken."""
    try:
        kept = load_json(path, finite=False)
    except (OSError, ValueError):
        return {}
    if not isinstance(kept, dict):
        return {}
    return {name: score for name, score in kept.items() if _is_score(score)}


def _is_score(score: Any) -> bool:
    try:
        check_fields(score, SCORE, "", ("accuracy",))
    except ValueError:
        return False
    return True
