"""Retrieval: how high images of the same class are ranked."""

import dataclasses
from typing import Any

import keras

from kerassl import evaluation
from kerassl.runs.evaluate import Evaluation
from kerassl.runs.journal import Measure, Seen, measure_now
from kerassl.runs.protocols.base import Protocol, image_count, sizes


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
