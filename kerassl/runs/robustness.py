"""Protocols that need more than the nearest images: ranks, and corruption."""

import dataclasses
from typing import Any

import keras
import numpy as np

from kerassl import evaluation
from kerassl.evaluation.corruptions import CORRUPTIONS, SEVERITIES
from kerassl.runs.evaluate import Evaluation
from kerassl.runs.journal import Measure, Seen, measure_now
from kerassl.runs.measuring import Protocol, image_count, sizes
from kerassl.runs.neighbors import NeighborsProtocol

CLEAN = "clean"


@dataclasses.dataclass(frozen=True)
class RetrievalProtocol(Protocol):
    """Mean average precision of test images searching training images.

    See `kerassl.evaluation.retrieval`.
    """

    suffix = ""

    def settings(self, subject: Evaluation) -> dict[str, Any]:
        """Returns the entries of the scores that are known in advance."""
        return {"metric": "mean average precision", **sizes(subject)}

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
            A dict: `accuracy`, the mean average precision; `first`, the share
            of queries whose first image has their class.
        """

        def search(seen: Seen) -> dict[str, Any]:
            train, test = subject.features(encoder, seen=seen)
            labels = [part.labels for part in subject.splits.values()]
            found = evaluation.retrieval(train, labels[0], test, labels[1])
            return {name: found[name] for name in ("accuracy", "first")}

        return measure("", search)


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
