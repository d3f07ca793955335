"""What all ways to measure an encoder share."""

from typing import Any

import keras

from kerassl.runs.evaluate import Evaluation, untrained
from kerassl.runs.journal import Measure, measure_now

# What is measured, in words.
ENCODERS = ("encoder", "random weights")


class Protocol:
    """A way to measure an encoder, beside the same one with random weights."""

    # What is told of the random weights too, as `untrained_...`.
    told: tuple[str, ...] = ("accuracy", "std")

    def settings(self, subject: Evaluation) -> dict[str, Any]:
        """Returns those of the scores' entries that are known beforehand."""
        raise NotImplementedError

    def lengths(self, subject: Evaluation) -> dict[str, float]:
        """Returns what `score` measures, each by its name, and how long it is.

        Returns:
            A dict of name to the number of images that the encoder sees; one
            that it is trained on counts for `TRAINING`.
        """
        raise NotImplementedError

    def score(
        self,
        subject: Evaluation,
        encoder: keras.Model,
        measure: Measure = measure_now,
    ) -> dict[str, Any]:
        """Returns the scores of an encoder, without `settings`.

        Args:
            subject: `Evaluation`.
            encoder: `keras.Model`.
            measure: measures what has one of the names of `lengths`.
        """
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

    def notes(self, subject: Evaluation) -> list[str]:
        """Returns what is to be known beforehand, in words."""
        return []

    def plan(
        self, subject: Evaluation, floor: dict[str, Any] | None = None
    ) -> dict[str, float]:
        """Returns the names of what `measure` measures, and their lengths."""
        lengths = self.lengths(subject)
        return {
            _joined(which, name): length
            for which in (ENCODERS if floor is None else ENCODERS[:1])
            for name, length in lengths.items()
        }

    def measure(
        self,
        subject: Evaluation,
        floor: dict[str, Any] | None = None,
        measure: Measure = measure_now,
    ) -> dict[str, Any]:
        """Returns the scores and the settings.

        Args:
            subject: `Evaluation`.
            floor: what an earlier call returned for the same architecture and
                the same data: what it has of random weights is taken over,
                instead of being measured again.
            measure: measures what has one of the names of `plan`.

        Returns:
            A dict: what `score` and `settings` return, and what `score` says of
            random weights, as `untrained_...`.
        """

        def score(which: str, encoder: keras.Model) -> dict[str, Any]:
            return self.score(
                subject,
                encoder,
                lambda name, one: measure(_joined(which, name), one),
            )

        scores = score(ENCODERS[0], subject.encoder)
        if floor is None:
            found = score(ENCODERS[1], untrained(subject.encoder))
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


def _joined(*names: str) -> str:
    return ", ".join(filter(None, names))


def sizes(subject: Evaluation) -> dict[str, Any]:
    """Returns the settings of an evaluation's images."""
    counts = {
        f"{split}_size": len(part.images)
        for split, part in subject.splits.items()
    }
    return {**subject.settings, **counts}


def image_count(subject: Evaluation) -> int:
    """Returns the number of training and test images."""
    return sum(len(part.images) for part in subject.splits.values())
