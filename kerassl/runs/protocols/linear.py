"""Linear probing."""

import dataclasses
import functools
from typing import Any

import keras
import numpy as np

from kerassl import encoders, evaluation
from kerassl.runs.evaluate import Evaluation
from kerassl.runs.journal import Measure, Seen, measure_now
from kerassl.runs.protocols.base import image_count
from kerassl.runs.protocols.few_labels import FewLabels


@dataclasses.dataclass(frozen=True)
class LinearProtocol(FewLabels):
    """The linear probe on frozen features.

    See `kerassl.evaluation.linear_probe`.

    Args:
        labels: as in `FewLabels`.
        per_class: as in `FewLabels`.
        seeds: as in `FewLabels`.
        layer: str, the stage or layer whose features to use, or `"stages"` to
            concatenate all stages; by default the output.
    """

    layer: str | None = None

    def settings(self, subject: Evaluation) -> dict[str, Any]:
        """Returns the entries of the scores that are known in advance."""
        return {**super().settings(subject), "layer": self.layer or "output"}

    def check(
        self, subject: Evaluation, floor: dict[str, Any] | None = None
    ) -> None:
        """Checks the settings before anything is measured.

        Raises:
            ValueError: naming the setting.
        """
        super().check(subject, floor)
        if self.layer is not None:
            encoders.layer_features(subject.encoder, self.layer)

    def notes(self, subject: Evaluation) -> list[str]:
        """Returns sentences to show before the measurement."""
        notes = super().notes(subject)
        if self.seeds > 1 and self.per_class is None and self.labels == 1:
            notes.append(
                f"Each of the {self.seeds} draws of linear uses all labels; "
                "they differ only in the fifth that chooses the penalty."
            )
        return notes

    @property
    def suffix(self) -> str:
        """The part of a score's name that identifies labels and layer."""
        return super().suffix + (f"_{self.layer}" if self.layer else "")

    def costs(self, subject: Evaluation) -> dict[str, float]:
        """Returns the names and the costs of the measurements."""
        # The first draw computes the features. Fits count as one image each.
        draws = dict.fromkeys(self._draws(), float(self._size(subject)))
        return {**draws, self._draws()[0]: float(image_count(subject))}

    def score(
        self,
        subject: Evaluation,
        encoder: keras.Model,
        measure: Measure = measure_now,
    ) -> dict[str, Any]:
        """Returns the scores of an encoder, without `settings`.

        Returns:
            A dict: `accuracy`, the mean over the seeds; `std`, with several
            seeds; `penalty`, the one chosen with the first seed.
        """
        labels: dict[str, Any] = {
            split: part.labels for split, part in subject.splits.items()
        }
        features: list[np.ndarray] = []  # Computed on first use.

        def probe(seed: int, seen: Seen) -> dict[str, Any]:
            if not features:
                features.extend(subject.features(encoder, self.layer, seen))
            rows = self._chosen(subject, seed)
            return evaluation.linear_probe(
                features[0][rows],
                labels["train"][rows],
                features[1],
                labels["test"],
                seed=seed,
            )

        scores = [
            measure(draw, functools.partial(probe, seed))
            for seed, draw in enumerate(self._draws())
        ]
        return {**self._summary(scores), "penalty": scores[0]["penalty"]}
