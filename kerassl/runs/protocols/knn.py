"""Protocols by the nearest neighbors: kNN, on clean and corrupted images."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from kerassl import encoders, evaluation
from kerassl.evaluation.corruptions import CORRUPTIONS, SEVERITIES
from kerassl.runs.evaluate import Evaluation
from kerassl.runs.journal import Measure, Seen, measure_now
from kerassl.runs.protocols.base import Protocol, image_count, sizes

CLEAN = "clean"


@dataclasses.dataclass(frozen=True)
class NeighborsProtocol(Protocol):
    """The base of protocols by nearest neighbors.

    Args:
        k: int > 0, the number of neighbors.
        temperature: float > 0; see `kerassl.evaluation.knn`.
    """

    k: int = 20
    temperature: float = 0.07
    suffix = ""

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


@dataclasses.dataclass(frozen=True)
class KNNProtocol(NeighborsProtocol):
    """kNN accuracy of the encoder's output and of each of its stages.

    One pass over the images serves all stages (see `kerassl.encoders.stages`).
    Only the features of the test images are kept, and their nearest neighbors.

    Args:
        k: as in `NeighborsProtocol`.
        temperature: as in `NeighborsProtocol`.
    """

    compared = ("accuracy", "stages", "effective_rank")

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
            # It may end in an operation that isn't a layer, such as `x + y`.
            output = getattr(encoder, "operations", encoder.layers)[-1].name
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


@dataclasses.dataclass(frozen=True)
class CorruptedProtocol(NeighborsProtocol):
    """kNN accuracy on corrupted test images, by clean training images.

    See `kerassl.evaluation.corrupt`.

    Args:
        k: as in `KNNProtocol`.
        temperature: as in `KNNProtocol`.
        severity: int in [1, 5].
    """

    severity: int = 3
    compared = ("accuracy", "kinds")

    def settings(self, subject: Evaluation) -> dict[str, Any]:
        """Returns the entries of the scores that are known in advance."""
        return {**super().settings(subject), "severity": self.severity}

    def check(
        self, subject: Evaluation, floor: dict[str, Any] | None = None
    ) -> None:
        """Checks the settings before anything is measured.

        Raises:
            ValueError: naming the setting.
        """
        if not 1 <= self.severity <= SEVERITIES:
            raise ValueError(
                f"`severity` must be between 1 and {SEVERITIES}. Received: "
                f"{self.severity}"
            )
        super().check(subject, floor)

    def costs(self, subject: Evaluation) -> dict[str, float]:
        """Returns the names and the costs of the measurements."""
        tests = len(CORRUPTIONS) * len(subject.splits["test"].images)
        return {"": image_count(subject) + tests}

    def score(
        self,
        subject: Evaluation,
        encoder: keras.Model,
        measure: Measure = measure_now,
    ) -> dict[str, Any]:
        """Returns the scores of an encoder, without `settings`.

        Returns:
            A dict: `accuracy`, the mean over the kinds of corruption; `kinds`,
            the accuracy of each, and of clean images.
        """
        return measure("", lambda seen: self._score(subject, encoder, seen))

    def _score(
        self, subject: Evaluation, encoder: keras.Model, seen: Seen
    ) -> dict[str, Any]:
        neighbors = {}
        for kind in (CLEAN, *CORRUPTIONS):
            features, labels = [], []
            batches = subject.batches("test", seen=seen)
            for number, (images, truth) in enumerate(batches):
                if kind != CLEAN:
                    images = evaluation.corrupt(
                        images, kind, self.severity, seed=number
                    )
                features.append(encoder.predict_on_batch(images))
                labels.append(truth)
            neighbors[kind] = evaluation.Neighbors(
                np.concatenate(features),
                np.concatenate(labels),
                self.k,
                self.temperature,
            )
        for images, truth in subject.batches("train", seen=seen):
            features = encoder.predict_on_batch(images)
            for one in neighbors.values():
                one.add(features, truth)
        kinds = {k: one.score()["accuracy"] for k, one in neighbors.items()}
        corrupted = [score for kind, score in kinds.items() if kind != CLEAN]
        return {"accuracy": float(np.mean(corrupted)), "kinds": kinds}
