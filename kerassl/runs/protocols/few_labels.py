"""Protocols that learn from all labels or from a few."""

import dataclasses
import decimal
from typing import Any

import numpy as np

from kerassl import evaluation
from kerassl.evaluation.labels import encode_labels
from kerassl.runs.evaluate import Evaluation
from kerassl.runs.protocols.base import Protocol, sizes


@dataclasses.dataclass(frozen=True)
class FewLabels(Protocol):
    """The base of protocols that learn from labels.

    Which images are labeled depends only on the data, these arguments and the
    seed, so that all encoders learn from the same labels.

    Args:
        labels: float in (0, 1], the share of each class that is labeled.
        per_class: int, the number of labeled images per class, instead.
        seeds: int > 0, the number of random draws of labels to average over.
    """

    labels: float = 1.0
    per_class: int | None = None
    seeds: int = 1

    def settings(self, subject: Evaluation) -> dict[str, Any]:
        """Returns the entries of the scores that are known in advance."""
        count = self._size(subject)
        return {"seeds": self.seeds, **sizes(subject), "train_size": count}

    def check(
        self, subject: Evaluation, floor: dict[str, Any] | None = None
    ) -> None:
        """Checks the settings before anything is measured.

        Raises:
            ValueError: naming the setting.
        """
        if self.seeds < 1:
            raise ValueError(
                f"`seeds` must be at least 1. Received: {self.seeds}"
            )
        if self.per_class is not None and self.labels != 1:
            raise ValueError(
                "Give one of `labels` and `per_class`. Received: "
                f"labels={self.labels}, per_class={self.per_class}"
            )
        if not 0 < self.labels <= 1:
            raise ValueError(
                f"`labels` must be in (0, 1]. Received: {self.labels}"
            )
        super().check(subject, floor)
        if self.per_class is None and self.labels != 1:
            self._check_share(subject)

    def _check_share(self, subject: Evaluation) -> None:
        """Refuses a share that rounds to no images or to all."""
        counts = _class_counts(subject)
        drawn = np.round(self.labels * counts)
        most, size = counts.max(), counts.sum()
        found = f"`labels` is {self.labels:g} of each class, and the largest "
        found += f"has {most:,} training images: "
        if not drawn.any():
            raise ValueError(
                f"{found}that is less than one image. Give at least "
                f"{np.ceil(1e6 / most) / 1e6:g}, or `per_class`."
            )
        if (drawn == counts).all():
            raise ValueError(
                f"{found}that is all {size:,}. Leave it out to use all, or "
                "give less."
            )

    def notes(self, subject: Evaluation) -> list[str]:
        """Returns sentences to show before the measurement."""
        counts = _class_counts(subject)
        small = np.sum(np.round(self.labels * counts) < 1)
        if self.per_class is not None or not small:
            return []
        return [
            f"{small:,} of {len(counts):,} classes have so few training "
            f"images that {self.labels:g} of them is none: one is used."
        ]

    @property
    def suffix(self) -> str:
        """The part of a score's name that identifies the labels."""
        if self.per_class is not None:
            return f"_{self.per_class}_per_class"
        # Without rounding, since scores of the same name replace each other.
        percent = (100 * decimal.Decimal(repr(float(self.labels)))).normalize()
        return "" if self.labels == 1 else f"_{percent:f}%"

    def _draws(self) -> list[str]:
        """Returns a name for each draw of labels."""
        if self.seeds == 1:
            return [""]
        return [f"draw {i + 1} of {self.seeds}" for i in range(self.seeds)]

    def _size(self, subject: Evaluation) -> int:
        """Returns the number of labeled images, the same for each draw."""
        return len(self._chosen(subject, 0))

    def _chosen(self, subject: Evaluation, seed: int) -> np.ndarray:
        share = self.labels if self.per_class is None else None
        labels = subject.splits["train"].labels
        return evaluation.few_labels(labels, share, self.per_class, seed)

    def _summary(self, scores: list[dict[str, Any]]) -> dict[str, Any]:
        """Returns mean and standard deviation over the seeds, and each one."""
        accuracies = [score["accuracy"] for score in scores]
        summary: dict[str, Any] = {"accuracy": float(np.mean(accuracies))}
        if self.seeds > 1:
            summary["std"] = float(np.std(accuracies, ddof=1))
            summary["draws"] = accuracies
        return summary


def _class_counts(subject: Evaluation) -> np.ndarray:
    """Returns the number of training images of each class."""
    _, (numbers,) = encode_labels({"train": subject.splits["train"].labels})
    return np.bincount(numbers)
