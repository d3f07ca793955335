"""The base of the protocols that measure encoders."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import keras

from kerassl.runs.evaluate import Evaluation, untrained
from kerassl.runs.journal import Measure, measure_now
from kerassl.runs.rivals import ENCODER, FLOOR

# The scores that are reported for other encoders.
BESIDE = ("accuracy", "std", "draws")
NONE: Mapping[str, Evaluation] = MappingProxyType({})


class Protocol:
    """Measures an encoder, and the same one with random weights."""

    # The scores that are also reported for random weights, as `untrained_...`.
    compared: tuple[str, ...] = ("accuracy", "std", "draws")

    def settings(self, subject: Evaluation) -> dict[str, Any]:
        """Returns the entries of the scores that are known in advance."""
        raise NotImplementedError

    def costs(self, subject: Evaluation) -> dict[str, float]:
        """Returns the names and the costs of the measurements.

        Returns:
            A dict from the name of each measurement that `score` makes to the
            number of images that the encoder processes for it. An image of a
            training step counts as `TRAINING` images.
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
            measure: called with one of the names in `costs` and a function
                that measures it.
        """
        raise NotImplementedError

    def check(
        self, subject: Evaluation, floor: dict[str, Any] | None = None
    ) -> None:
        """Checks the settings before anything is measured.

        Args:
            subject: `Evaluation`.
            floor: as in `measure`.

        Raises:
            ValueError: naming the setting.
        """
        # A floor may have a range where the images here have none.
        asked = {"range": None, **self.settings(subject)}
        for name, value in asked.items():
            if floor is not None and floor.get(name) != value:
                raise ValueError(
                    f"The untrained encoder was measured with {name} "
                    f"{floor.get(name)}, and this one would be with {value}."
                )

    def notes(self, subject: Evaluation) -> list[str]:
        """Returns sentences to show before the measurement."""
        return []

    def plan(
        self,
        subject: Evaluation,
        floor: dict[str, Any] | None = None,
        beside: Mapping[str, Evaluation] = NONE,
    ) -> dict[str, float]:
        """Returns the names and the costs of all that `measure` measures."""
        own = {ENCODER: subject}
        if floor is None:
            own[FLOOR] = subject
        return {
            _joined(which, name): cost
            for which, one in {**own, **beside}.items()
            for name, cost in self.costs(one).items()
        }

    def measure(
        self,
        subject: Evaluation,
        floor: dict[str, Any] | None = None,
        measure: Measure = measure_now,
        beside: Mapping[str, Evaluation] = NONE,
    ) -> dict[str, Any]:
        """Returns the scores and the settings.

        Args:
            subject: `Evaluation`.
            floor: the result of an earlier call for the same architecture and
                data. Its scores of random weights are reused.
            measure: called with one of the names in `plan` and a function
                that measures it.
            beside: dict from the name of another encoder to what
                `Evaluation.beside` returned for it.

        Returns:
            A dict: the entries of `score` and `settings`, scores of random
            weights as `untrained_...`, and as `beside` a dict of the scores
            of the other encoders.
        """

        def score(
            which: str, subject: Evaluation, encoder: keras.Model
        ) -> dict[str, Any]:
            return self.score(
                subject,
                encoder,
                lambda name, one: measure(_joined(which, name), one),
            )

        scores = score(ENCODER, subject, subject.encoder)
        if floor is None:
            found = score(FLOOR, subject, untrained(subject.encoder))
            floor = {
                f"untrained_{name}": found[name]
                for name in self.compared
                if name in found
            }
        rivals = {}
        for rival, one in beside.items():
            found = score(rival, one, one.encoder)
            rivals[rival] = {k: found[k] for k in BESIDE if k in found}
        if rivals:
            scores["beside"] = rivals
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
    """Returns the entries of the scores that describe the images."""
    counts = {
        f"{split}_size": len(part.images)
        for split, part in subject.splits.items()
    }
    return {**subject.settings, **counts}


def image_count(subject: Evaluation) -> int:
    """Returns the number of training and test images together."""
    return sum(len(part.images) for part in subject.splits.values())
