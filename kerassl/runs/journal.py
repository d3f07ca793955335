"""What a long evaluation has measured so far, on disk and in sight."""

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kerassl.reading import check_fields, load_json
from kerassl.run_folder import RECIPE, SCORE, environment
from kerassl.runs.files import replacing

_logger = logging.getLogger("kerassl")

# Told how many images the encoder has seen since the last call; one that it
# is trained on counts for `TRAINING`.
Seen = Callable[[float], None]
TRAINING = 3
Scores = dict[str, Any]
# Measures what has a name, or knows what was measured.
Measure = Callable[[str, Callable[[Seen], Scores]], Scores]


def ignore(images: float) -> None:
    """Does nothing."""


def measure_now(name: str, measure: Callable[[Seen], Scores]) -> Scores:
    """Measures, and keeps nothing."""
    return measure(ignore)


class Journal:
    """Measures each thing once, also if the evaluation is interrupted.

    What is measured is written at once. The next evaluation with the same file
    takes it from there.

    Args:
        path: the file; `None` keeps nothing.
        plan: dict of the name of what is to be measured to its length, in
            images that the encoder sees.
        show: called with the name of what is being measured, the length that
            is done, and the whole, without what was measured before.
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
        """Returns the scores that have a name of the plan.

        Args:
            name: str.
            measure: returns the scores. It is given a function that it may
                call with the number of images that the encoder has seen.
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
            with replacing(self.path) as temporary:
                temporary.write_text(json.dumps(self.scores), encoding="utf-8")
        except OSError as error:
            self.path = None
            _logger.warning(
                "An interrupted evaluation will start anew, since nothing can "
                "be kept: %s",
                error,
            )

    def remove(self) -> None:
        """Removes the file."""
        if self.path is not None:
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)


def journal_path(source: str | Path, *settings: Any) -> Path:
    """Returns where an evaluation keeps what it has measured so far.

    Args:
        source: the run, whose folder it is in; of anything else it is in the
            user's cache.
        *settings: all that scores depend on, with a `repr` that says it.
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
    """Returns what is in the file; nothing if it is broken: it is measured."""
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
