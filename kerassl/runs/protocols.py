"""Protocols by name, and the rows of their scores."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from kerassl import encoders, evaluation
from kerassl.choices import check_choice
from kerassl.runs.comparison import standard_error
from kerassl.runs.evaluate import Evaluation
from kerassl.runs.few_labels import FineTuneProtocol, LinearProtocol
from kerassl.runs.journal import Measure, Seen, measure_now
from kerassl.runs.measuring import Protocol, image_count, sizes


@dataclasses.dataclass(frozen=True)
class KNNProtocol(Protocol):
    """kNN accuracy of the encoder's output and of each of its stages.

    One pass over the images serves all stages (see `kerassl.encoders.stages`).
    Only the features of the test images are kept, and their nearest neighbors.

    Args:
        k: int > 0, the number of neighbors.
        temperature: float > 0; see `kerassl.evaluation.knn`.
    """

    k: int = 20
    temperature: float = 0.07
    suffix = ""
    compared = ("accuracy", "stages", "effective_rank")

    def settings(self, subject: Evaluation) -> dict[str, Any]:
        """Returns the entries of the scores that are known in advance."""
        return {
            "k": self.k,
            "temperature": self.temperature,
            **sizes(subject),
        }

    def check(
        self, subject: Evaluation, floor: dict[str, Any] | None = None
    ) -> None:
        """Checks the settings before anything is measured.

        Raises:
            ValueError: naming the setting.
        """
        count = len(subject.splits["train"].images)
        if not 1 <= self.k <= count:
            raise ValueError(
                f"`k` must be between 1 and the {count} training images. "
                f"Received: {self.k}"
            )
        if not self.temperature > 0:
            raise ValueError(
                f"`temperature` must be above 0. Received: {self.temperature}"
            )
        super().check(subject, floor)

    def costs(self, subject: Evaluation) -> dict[str, float]:
        """Returns the names and the costs of the measurements."""
        return {"": image_count(subject)}

    def score(
        self,
        subject: Evaluation,
        encoder: keras.Model,
        measure: Measure = measure_now,
    ) -> dict[str, Any]:
        """Returns the scores of an encoder, without `settings`.

        Returns:
            A dict: `accuracy`, of the encoder's output; `stages`, a dict from
            stage to accuracy; `best_stage`, the name of the stage with the
            highest accuracy, or `None` without stages; and `effective_rank`,
            of the output for the test images.
        """
        return measure("", lambda seen: self._score(subject, encoder, seen))

    def _score(
        self, subject: Evaluation, encoder: keras.Model, seen: Seen
    ) -> dict[str, Any]:
        stages, output, model = encoders.stages(encoder), "output", encoder
        if stages:
            output = encoder.layers[-1].name
            model = encoders.stage_features(encoder, [*stages, output])

        def batches(split: str) -> Iterator[tuple[dict[str, Any], Any]]:
            for images, labels in subject.batches(split, seen=seen):
                features = model.predict_on_batch(images)
                yield features if stages else {output: features}, labels

        test = list(batches("test"))
        neighbors = {
            name: evaluation.Neighbors(
                np.concatenate([features[name] for features, _ in test]),
                np.concatenate([labels for _, labels in test]),
                self.k,
                self.temperature,
            )
            for name in test[0][0]
        }
        rank = evaluation.effective_rank(
            np.concatenate([features[output] for features, _ in test])
        )
        del test
        for features, labels in batches("train"):
            for name, found in neighbors.items():
                found.add(features[name], labels)
        scores = {
            name: found.score()["accuracy"] for name, found in neighbors.items()
        }
        accuracies = {name: scores[name] for name in stages}
        return {
            "accuracy": scores[output],
            "stages": accuracies,
            "best_stage": max(accuracies, key=scores.__getitem__, default=None),
            "effective_rank": rank,
        }


PROTOCOLS: dict[str, Callable] = {
    "knn": KNNProtocol,
    "linear": LinearProtocol,
    "linear_sgd": functools.partial(FineTuneProtocol, frozen=True),
    "finetune": FineTuneProtocol,
}


def protocol(name: str, **settings: Any) -> Any:
    """Returns a protocol by name.

    Args:
        name: str, such as `"knn"`.
        **settings: its arguments.

    Returns:
        An object whose methods `check` and `measure` take an `Evaluation`.

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
        entries as text: of each protocol, then of its stages, then of the
        encoders that were measured beside it.
    """
    for name, score in scores.items():
        rest = dict(score)
        accuracy = rest.pop("accuracy", None)
        floor = rest.pop("untrained_accuracy", None)
        stages = rest.pop("stages", {})
        floors = rest.pop("untrained_stages", {})
        best = rest.pop("best_stage", None)
        beside = rest.pop("beside", {})
        rest |= rest.pop("settings", None) or {}
        yield name, accuracy, floor, _words(rest)
        for stage, value in stages.items():
            note = "best stage" if stage == best else ""
            yield f"{name}, {stage}", value, floors.get(stage), note
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
