"""Ways to measure an encoder, each with the floor that it has to beat."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from kerassl import encoders, evaluation
from kerassl.choices import check_choice
from kerassl.runs.evaluate import Evaluation, untrained


@dataclasses.dataclass(frozen=True)
class KNNProtocol:
    """kNN accuracy, and that of the same encoder with random weights.

    Both for the encoder's output and for each of its stages
    (`kerassl.encoders.stages`), in one pass over the images. It keeps the test
    images' features and their nearest neighbours, but not the training images'
    features.

    Args:
        k: int > 0, the number of neighbours.
        temperature: float > 0; see `kerassl.evaluation.knn`.
    """

    k: int = 20
    temperature: float = 0.07
    suffix = ""

    def check(self, subject: Evaluation) -> None:
        """Refuses settings that don't fit, before any work.

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

    def measure(self, subject: Evaluation) -> dict[str, Any]:
        """Returns the scores and the settings.

        Returns:
            A dict: what `kerassl.evaluation.knn` returns, of the encoder's
            output; `untrained_accuracy`; `stages` and `untrained_stages`, dicts
            of stage to accuracy; and `best_stage`, the name of the stage with
            the highest accuracy, or `None` if there are no stages.
        """
        scores, stages = self._scores(subject, subject.encoder)
        floor, floors = self._scores(subject, untrained(subject.encoder))
        return {
            **scores,
            "untrained_accuracy": floor["accuracy"],
            "stages": stages,
            "untrained_stages": floors,
            "best_stage": max(stages, key=stages.__getitem__, default=None),
        }

    def _scores(
        self, subject: Evaluation, encoder: keras.Model
    ) -> tuple[dict[str, Any], dict[str, float]]:
        stages, output, model = encoders.stages(encoder), "output", encoder
        if stages:
            output = encoder.layers[-1].name
            model = encoders.stage_features(encoder, [*stages, output])

        def batches(split: str) -> Iterator[tuple[dict[str, Any], Any]]:
            for images, labels in subject.batches(split):
                features = model.predict_on_batch(images)
                yield features if stages else {output: features}, labels

        test = list(batches("test"))
        neighbours = {
            name: evaluation.Neighbours(
                np.concatenate([features[name] for features, _ in test]),
                np.concatenate([labels for _, labels in test]),
                self.k,
                self.temperature,
            )
            for name in test[0][0]
        }
        del test
        for features, labels in batches("train"):
            for name, found in neighbours.items():
                found.add(features[name], labels)
        scores = {name: found.score() for name, found in neighbours.items()}
        return scores[output], {
            name: scores[name]["accuracy"] for name in stages
        }


@dataclasses.dataclass(frozen=True)
class FewLabels:
    """What the protocols that learn from labels share.

    The same images keep their labels for every encoder: they depend on the
    data, the numbers and the seed alone.

    Args:
        labels: float in (0, 1], the share of each class that is labelled.
        per_class: int, the number of labelled images of each class, instead.
        seeds: int > 0, the number of draws to repeat it with.
    """

    labels: float = 1.0
    per_class: int | None = None
    seeds: int = 1

    def check(self, subject: Evaluation) -> None:
        """Refuses settings that don't fit, before any work.

        Raises:
            ValueError: naming the setting.
        """
        if self.seeds < 1:
            raise ValueError(
                f"`seeds` must be at least 1. Received: {self.seeds}"
            )
        self._chosen(subject, 0)

    @property
    def suffix(self) -> str:
        """What tells these labels apart in a score's name."""
        if self.per_class is not None:
            return f"_{self.per_class}_per_class"
        return "" if self.labels == 1 else f"_{100 * self.labels:g}%"

    def _chosen(self, subject: Evaluation, seed: int) -> np.ndarray:
        share = self.labels if self.per_class is None else None
        labels = subject.splits["train"].labels
        return evaluation.few_labels(labels, share, self.per_class, seed)

    def _summary(
        self, scores: list[dict[str, Any]], floors: list[dict[str, Any]]
    ) -> dict[str, Any]:
        """Returns means and standard deviations over the seeds."""
        summary: dict[str, Any] = {}
        for start, found in (("", scores), ("untrained_", floors)):
            accuracies = [score["accuracy"] for score in found]
            summary[f"{start}accuracy"] = float(np.mean(accuracies))
            if self.seeds > 1:
                deviation = float(np.std(accuracies, ddof=1))
                summary[f"{start}std"] = deviation
        for name in ("penalty", "learning_rate", "epochs"):
            if name in scores[0]:
                summary[name] = scores[0][name]
        sizes = {key: scores[0][key] for key in ("train_size", "test_size")}
        return {**summary, "seeds": self.seeds, **sizes}


@dataclasses.dataclass(frozen=True)
class LinearProtocol(FewLabels):
    """The linear probe on frozen features, and on those of random weights.

    See `kerassl.evaluation.linear_probe`.

    Args:
        labels: see `FewLabels`.
        per_class: see `FewLabels`.
        seeds: see `FewLabels`.
        layer: str, the stage or layer to take; by default the output.
    """

    layer: str | None = None

    def check(self, subject: Evaluation) -> None:
        """Refuses settings that don't fit, before any work.

        Raises:
            ValueError: naming the setting.
        """
        super().check(subject)
        if self.layer is not None:
            encoders.stage_features(subject.encoder, [self.layer])

    @property
    def suffix(self) -> str:
        """What tells these labels and this layer apart in a score's name."""
        return super().suffix + (f"_{self.layer}" if self.layer else "")

    def measure(self, subject: Evaluation) -> dict[str, Any]:
        """Returns the scores and the settings.

        Returns:
            A dict: `accuracy` and `untrained_accuracy`, means over the seeds;
            `std` and `untrained_std`, if there are several; `penalty`, of the
            first; `seeds`, `train_size`, `test_size`, `layer`.
        """
        labels: dict[str, Any] = {
            split: part.labels for split, part in subject.splits.items()
        }
        found = []
        for encoder in (subject.encoder, untrained(subject.encoder)):
            train, test = subject.features(encoder, self.layer)
            scores = []
            for seed in range(self.seeds):
                rows = self._chosen(subject, seed)
                scores.append(
                    evaluation.linear_probe(
                        train[rows],
                        labels["train"][rows],
                        test,
                        labels["test"],
                        seed=seed,
                    )
                )
            found.append(scores)
        return {**self._summary(*found), "layer": self.layer or "output"}


@dataclasses.dataclass(frozen=True)
class FineTuneProtocol(FewLabels):
    """Fine-tuning, and the same training from random weights.

    The second is supervised learning from scratch on the same labels, which
    tells whether the pretraining was worth it. See
    `kerassl.evaluation.fine_tune`.

    Args:
        labels: see `FewLabels`.
        per_class: see `FewLabels`.
        seeds: see `FewLabels`. The learning rate is chosen with the first.
        epochs: int, as in `kerassl.evaluation.fine_tune`.
        frozen: bool. Whether only a linear layer is trained, with random crops:
            the papers' linear evaluation.
    """

    epochs: int | None = None
    frozen: bool = False

    def measure(self, subject: Evaluation) -> dict[str, Any]:
        """Returns the scores and the settings.

        Returns:
            A dict: `accuracy` and `untrained_accuracy`, means over the seeds,
            the second from random weights; `std` and `untrained_std`, if there
            are several; `learning_rate` and `untrained_learning_rate`, the
            chosen ones; `epochs`, `seeds`, `train_size`, `test_size`.
        """
        found = []
        for encoder in (subject.encoder, untrained(subject.encoder)):
            scores: list[dict[str, Any]] = []
            for seed in range(self.seeds):
                rate = scores[0]["learning_rate"] if scores else None
                rows = self._chosen(subject, seed)
                scores.append(
                    evaluation.fine_tune(
                        encoder,
                        subject.splits["train"].select(rows),
                        subject.splits["test"],
                        frozen=self.frozen,
                        epochs=self.epochs,
                        learning_rate=rate,
                        seed=seed,
                    )
                )
            found.append(scores)
        return {
            **self._summary(*found),
            "untrained_learning_rate": found[1][0]["learning_rate"],
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
        An object with `check` and `measure`, both of an `Evaluation`.

    Raises:
        ValueError: if there is no such protocol, with the nearest ones.
    """
    check_choice("protocol", name, PROTOCOLS)
    return PROTOCOLS[name](**settings)


def score_rows(
    scores: dict[str, dict[str, Any]],
) -> Iterator[tuple[str, Any, Any, str]]:
    """Yields what to print of scores: a protocol's, then its stages'.

    Args:
        scores: dict of a protocol's name to what it measured.

    Yields:
        A name, the accuracy, that of random weights or `None`, and the rest in
        words.
    """
    for name, score in scores.items():
        rest = dict(score)
        accuracy = rest.pop("accuracy", None)
        floor = rest.pop("untrained_accuracy", None)
        stages = rest.pop("stages", {})
        floors = rest.pop("untrained_stages", {})
        best = rest.pop("best_stage", None)
        rest |= rest.pop("settings", None) or {}
        words = [
            f"{key.replace('_', ' ')} "
            + (f"{value:.4g}" if isinstance(value, float) else str(value))
            for key, value in rest.items()
            if value is not None
        ]
        yield name, accuracy, floor, ", ".join(words)
        for stage, value in stages.items():
            note = "best stage" if stage == best else ""
            yield f"{name}, {stage}", value, floors.get(stage), note
