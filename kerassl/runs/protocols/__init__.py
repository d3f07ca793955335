"""Protocols that measure encoders, by name, and the rows of their scores."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

from kerassl.choices import check_choice
from kerassl.runs.comparison import standard_error
from kerassl.runs.protocols.fine_tuning import FineTuneProtocol
from kerassl.runs.protocols.knn import CorruptedProtocol, KNNProtocol
from kerassl.runs.protocols.linear import LinearProtocol
from kerassl.runs.protocols.retrieval import RetrievalProtocol

PROTOCOLS: dict[str, Callable] = {
    "knn": KNNProtocol,
    "linear": LinearProtocol,
    "linear_sgd": functools.partial(FineTuneProtocol, frozen=True),
    "finetune": FineTuneProtocol,
    "retrieval": RetrievalProtocol,
    "knn_corrupted": CorruptedProtocol,
}


def protocol(name: str, **settings: Any) -> Any:
    """Returns a protocol by name.

    Args:
        name: str, such as `"knn"`.
        **settings: its arguments. `"knn"`: `k`, `temperature`.
            `"knn_corrupted"`: these and `severity`. `"linear"`: `labels` or
            `per_class`, `seeds`, `layer`. `"linear_sgd"` and `"finetune"`:
            `labels` or `per_class`, `seeds`, `epochs`. `"retrieval"`: none.
            They mean what the options of `kerassl evaluate` mean.

    Returns:
        An object whose methods `check` and `measure` take an `Evaluation`.
        `measure` returns a dict of scores, with `accuracy` in [0, 1].

    Raises:
        ValueError: if there is no such protocol, with the nearest names.
    """
    check_choice("protocol", name, PROTOCOLS)
    return PROTOCOLS[name](**settings)


def score_rows(
    scores: dict[str, dict[str, Any]],
) -> Iterator[tuple[str, Any, Any, str]]:
    """Yields the rows of a table of scores.

    Args:
        scores: dict from a protocol's name to its scores.

    Yields:
        A name, the accuracy, that of random weights or `None`, and the other
        entries as text: of each protocol, then of its stages or kinds, then of
        the encoders that were measured beside it.
    """
    for name, score in scores.items():
        rest = dict(score)
        accuracy = rest.pop("accuracy", None)
        floor = rest.pop("untrained_accuracy", None)
        # Of stages, or of kinds of corrupted images.
        parts = rest.pop("stages", {}) | rest.pop("kinds", {})
        floors = rest.pop("untrained_stages", {})
        floors = floors | rest.pop("untrained_kinds", {})
        best = rest.pop("best_stage", None)
        beside = rest.pop("beside", {})
        rest |= rest.pop("settings", None) or {}
        yield name, accuracy, floor, _words(rest)
        for part, value in parts.items():
            note = "best stage" if part == best else ""
            yield f"{name}, {part}", value, floors.get(part), note
        for rival, found in beside.items():
            words = {k: v for k, v in found.items() if k != "accuracy"}
            yield f"{name} of {rival}", found["accuracy"], None, _words(words)


def _words(entries: dict[str, Any]) -> str:
    entries = dict(entries)
    for which in ("", "untrained_"):
        error = standard_error(entries.pop(f"{which}draws", ()))
        if error is not None:
            entries[f"{which}standard error"] = error
    return ", ".join(
        f"{key.replace('_', ' ')} "
        + (f"{value:.4g}" if isinstance(value, float) else str(value))
        for key, value in entries.items()
        if value is not None
    )
