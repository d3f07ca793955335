"""Protocols that learn from all labels or from a few."""

import dataclasses
import decimal
import functools
from typing import Any

import keras
import numpy as np

from kerassl import encoders, evaluation
from kerassl.evaluation.fine_tuning import (
    BATCH_SIZE,
    default_epochs,
    default_rates,
)
from kerassl.evaluation.labels import encode_labels
from kerassl.runs.evaluate import Evaluation
from kerassl.runs.journal import TRAINING, Measure, Seen, measure_now
from kerassl.runs.measuring import Protocol, image_count, sizes


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


@dataclasses.dataclass(frozen=True)
class FineTuneProtocol(FewLabels):
    """Fine-tuning.

    From random weights it is supervised learning from scratch on the same
    labels, the baseline that pretraining has to beat. See
    `kerassl.evaluation.fine_tune`.

    Args:
        labels: as in `FewLabels`.
        per_class: as in `FewLabels`.
        seeds: as in `FewLabels`. The learning rate is chosen with the first.
        epochs: int, as in `kerassl.evaluation.fine_tune`.
        frozen: bool. Whether to train only a linear layer, on random crops:
            the linear evaluation of most papers.
    """

    epochs: int | None = None
    frozen: bool = False

    compared = ("accuracy", "std", "draws", "learning_rate")

    def settings(self, subject: Evaluation) -> dict[str, Any]:
        """Returns the entries of the scores that are known in advance."""
        known = super().settings(subject)
        epochs = self.epochs or default_epochs(known["train_size"])
        return {**known, "epochs": epochs}

    def check(
        self, subject: Evaluation, floor: dict[str, Any] | None = None
    ) -> None:
        """Checks the settings before anything is measured.

        Raises:
            ValueError: naming the setting.
        """
        if self.epochs is not None and self.epochs < 1:
            raise ValueError(
                f"`epochs` must be at least 1. Received: {self.epochs}"
            )
        super().check(subject, floor)

    @property
    def _step_cost(self) -> int:
        return 1 if self.frozen else TRAINING

    def costs(self, subject: Evaluation) -> dict[str, float]:
        """Returns the names and the costs of the measurements."""
        size = self._size(subject)

        def fit(images: int) -> int:
            epochs = self.epochs or default_epochs(images)
            return self._step_cost * images * epochs

        last = fit(size) + len(subject.splits["test"].images)
        held = max(1, round(size / 5))
        choice = fit(max(1, size - held)) + held
        rates = len(default_rates(subject.encoder))
        draws = dict.fromkeys(self._draws(), float(last))
        return {**draws, self._draws()[0]: float(rates * choice + last)}

    def score(
        self,
        subject: Evaluation,
        encoder: keras.Model,
        measure: Measure = measure_now,
    ) -> dict[str, Any]:
        """Returns the scores of an encoder, without `settings`.

        Returns:
            A dict: `accuracy`, the mean over the seeds; `std`, with several
            seeds; `learning_rate`, the one chosen with the first seed.
        """
        scores: list[dict[str, Any]] = []

        def fine_tune(seed: int, seen: Seen) -> dict[str, Any]:
            rows = self._chosen(subject, seed)
            batch_size = min(BATCH_SIZE, len(rows))
            return evaluation.fine_tune(
                encoder,
                subject.splits["train"].select(rows),
                subject.splits["test"],
                frozen=self.frozen,
                epochs=self.epochs,
                learning_rate=scores[0]["learning_rate"] if scores else None,
                seed=seed,
                callbacks=[_SeenImages(seen, self._step_cost * batch_size)],
            )

        for seed, draw in enumerate(self._draws()):
            scores.append(measure(draw, functools.partial(fine_tune, seed)))
        return {
            **self._summary(scores),
            "learning_rate": scores[0]["learning_rate"],
        }


def _class_counts(subject: Evaluation) -> np.ndarray:
    """Returns the number of training images of each class."""
    _, (numbers,) = encode_labels({"train": subject.splits["train"].labels})
    return np.bincount(numbers)


class _SeenImages(keras.callbacks.Callback):
    """Counts the images of training steps and of predicted batches."""

    async_safe = True  # It doesn't read the loss.

    def __init__(self, seen: Seen, step_cost: int):
        super().__init__()
        self.seen = seen
        self.step_cost = step_cost

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Counts the images of a step."""
        self.seen(self.step_cost)

    def on_predict_batch_end(
        self, batch: int, logs: dict | None = None
    ) -> None:
        """Counts the images of a batch."""
        self.seen(len(next(iter((logs or {}).values()), ())))
