"""Fine-tuning, of the encoder or only of a linear layer."""

import dataclasses
import functools
from typing import Any

import keras

from kerassl import encoders, evaluation
from kerassl.evaluation.fine_tuning import (
    BATCH_SIZE,
    default_epochs,
    default_rates,
)
from kerassl.runs.evaluate import Evaluation
from kerassl.runs.journal import TRAINING, Measure, Seen, measure_now
from kerassl.runs.protocols.few_labels import FewLabels


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
            ValueError: naming the setting, or if the encoder doesn't take
                square images.
        """
        if self.epochs is not None and self.epochs < 1:
            raise ValueError(
                f"`epochs` must be at least 1. Received: {self.epochs}"
            )
        encoders.image_size(subject.encoder)
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
