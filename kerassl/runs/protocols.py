"""Ways to measure an encoder, each with the floor that it has to beat."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from kerassl import encoders, evaluation
from kerassl.choices import check_choice
from kerassl.evaluation.fine_tuning import default_epochs
from kerassl.runs.evaluate import Evaluation, untrained


class Protocol:
    """A way to measure an encoder, beside the same one with random weights."""

    # What is told of the random weights too, as `untrained_...`.
    told: tuple[str, ...] = ("accuracy", "std")

    def settings(self, subject: Evaluation) -> dict[str, Any]:
        """Returns those of the scores' entries that are known beforehand."""
        raise NotImplementedError

    def score(
        self, subject: Evaluation, encoder: keras.Model
    ) -> dict[str, Any]:
        """Returns the scores of an encoder, without `settings`."""
        raise NotImplementedError

    def check(
        self, subject: Evaluation, floor: dict[str, Any] | None = None
    ) -> None:
        """Refuses settings that don't fit, before any work.

        Args:
            subject: `Evaluation`.
            floor: as in `measure`.

        Raises:
            ValueError: naming the setting.
        """
        for name, value in self.settings(subject).items():
            if floor is not None and floor.get(name) != value:
                raise ValueError(
                    f"The untrained encoder was measured with {name} "
                    f"{floor.get(name)}, and this one is to be with {value}."
                )

    def measure(
        self, subject: Evaluation, floor: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Returns the scores and the settings.

        Args:
            subject: `Evaluation`.
            floor: what an earlier call returned for the same architecture and
                the same data: what it has of random weights is taken over,
                instead of being measured again.

        Returns:
            A dict: what `score` and `settings` return, and what `score` says of
            random weights, as `untrained_...`.
        """
        scores = self.score(subject, subject.encoder)
        if floor is None:
            found = self.score(subject, untrained(subject.encoder))
            floor = {
                f"untrained_{name}": found[name]
                for name in self.told
                if name in found
            }
        return {
            **scores,
            **self.settings(subject),
            **{
                name: value
                for name, value in floor.items()
                if name.startswith("untrained_")
            },
        }


@dataclasses.dataclass(frozen=True)
class KNNProtocol(Protocol):
    """kNN accuracy of the encoder's output and of each of its stages.

    In one pass over the images (see `kerassl.encoders.stages`). It keeps the
    test images' features and their nearest neighbours, but not the training
    images' features.

    Args:
        k: int > 0, the number of neighbours.
        temperature: float > 0; see `kerassl.evaluation.knn`.
    """

    k: int = 20
    temperature: float = 0.07
    suffix = ""
    told = ("accuracy", "stages", "effective_rank")

    def settings(self, subject: Evaluation) -> dict[str, Any]:
        """Returns those of the scores' entries that are known beforehand."""
        return {
            "k": self.k,
            "temperature": self.temperature,
            **_sizes(subject),
        }

    def check(
        self, subject: Evaluation, floor: dict[str, Any] | None = None
    ) -> None:
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
        super().check(subject, floor)

    def score(
        self, subject: Evaluation, encoder: keras.Model
    ) -> dict[str, Any]:
        """Returns the scores of an encoder, without `settings`.

        Returns:
            A dict: `accuracy`, of the encoder's output; `stages`, a dict of
            stage to accuracy; `best_stage`, the name of the stage with the
            highest accuracy, or `None` if there are no stages; and
            `effective_rank`, of the output for the test images.
        """
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
        rank = evaluation.effective_rank(
            np.concatenate([features[output] for features, _ in test])
        )
        del test
        for features, labels in batches("train"):
            for name, found in neighbours.items():
                found.add(features[name], labels)
        scores = {
            name: found.score()["accuracy"]
            for name, found in neighbours.items()
        }
        accuracies = {name: scores[name] for name in stages}
        return {
            "accuracy": scores[output],
            "stages": accuracies,
            "best_stage": max(accuracies, key=scores.__getitem__, default=None),
            "effective_rank": rank,
        }


def _sizes(subject: Evaluation) -> dict[str, int]:
    return {
        f"{split}_size": len(part.images)
        for split, part in subject.splits.items()
    }


@dataclasses.dataclass(frozen=True)
class FewLabels(Protocol):
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

    def settings(self, subject: Evaluation) -> dict[str, Any]:
        """Returns those of the scores' entries that are known beforehand."""
        count = len(self._chosen(subject, 0))
        return {"seeds": self.seeds, **_sizes(subject), "train_size": count}

    def check(
        self, subject: Evaluation, floor: dict[str, Any] | None = None
    ) -> None:
        """Refuses settings that don't fit, before any work.

        Raises:
            ValueError: naming the setting.
        """
        if self.seeds < 1:
            raise ValueError(
                f"`seeds` must be at least 1. Received: {self.seeds}"
            )
        super().check(subject, floor)

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

    def _summary(self, scores: list[dict[str, Any]]) -> dict[str, Any]:
        """Returns the mean and the standard deviation over the seeds."""
        accuracies = [score["accuracy"] for score in scores]
        summary = {"accuracy": float(np.mean(accuracies))}
        if self.seeds > 1:
            summary["std"] = float(np.std(accuracies, ddof=1))
        return summary


@dataclasses.dataclass(frozen=True)
class LinearProtocol(FewLabels):
    """The linear probe on frozen features.

    See `kerassl.evaluation.linear_probe`.

    Args:
        labels: see `FewLabels`.
        per_class: see `FewLabels`.
        seeds: see `FewLabels`.
        layer: str, the stage or layer to take, or `"stages"` for all stages
            side by side; by default the output.
    """

    layer: str | None = None

    def settings(self, subject: Evaluation) -> dict[str, Any]:
        """Returns those of the scores' entries that are known beforehand."""
        return {**super().settings(subject), "layer": self.layer or "output"}

    def check(
        self, subject: Evaluation, floor: dict[str, Any] | None = None
    ) -> None:
        """Refuses settings that don't fit, before any work.

        Raises:
            ValueError: naming the setting.
        """
        super().check(subject, floor)
        if self.layer is not None:
            encoders.layer_features(subject.encoder, self.layer)

    @property
    def suffix(self) -> str:
        """What tells these labels and this layer apart in a score's name."""
        return super().suffix + (f"_{self.layer}" if self.layer else "")

    def score(
        self, subject: Evaluation, encoder: keras.Model
    ) -> dict[str, Any]:
        """Returns the scores of an encoder, without `settings`.

        Returns:
            A dict: `accuracy`, the mean over the seeds; `std`, if there are
            several; `penalty`, of the first.
        """
        train, test = subject.features(encoder, self.layer)
        labels: dict[str, Any] = {
            split: part.labels for split, part in subject.splits.items()
        }
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
        return {**self._summary(scores), "penalty": scores[0]["penalty"]}


@dataclasses.dataclass(frozen=True)
class FineTuneProtocol(FewLabels):
    """Fine-tuning.

    From random weights it is supervised learning from scratch on the same
    labels, which tells whether the pretraining was worth it. See
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

    told = ("accuracy", "std", "learning_rate")

    def settings(self, subject: Evaluation) -> dict[str, Any]:
        """Returns those of the scores' entries that are known beforehand."""
        known = super().settings(subject)
        epochs = self.epochs or default_epochs(known["train_size"])
        return {**known, "epochs": epochs}

    def score(
        self, subject: Evaluation, encoder: keras.Model
    ) -> dict[str, Any]:
        """Returns the scores of an encoder, without `settings`.

        Returns:
            A dict: `accuracy`, the mean over the seeds; `std`, if there are
            several; `learning_rate`, the chosen one.
        """
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
        return {
            **self._summary(scores),
            "learning_rate": scores[0]["learning_rate"],
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
