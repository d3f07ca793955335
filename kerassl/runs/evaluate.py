"""Measures what an encoder has learned."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerassl import data as kerassl_data
from kerassl import encoders, evaluation
from kerassl.choices import check_choice
from kerassl.encoders.kerashub import restart_vits
from kerassl.presets import load_encoder


class Evaluation:
    """An encoder and labelled images, ready to be measured.

    Args:
        source: a run, a preset or whatever else `kerassl.load_encoder` takes.
        data: str, as `kerassl.data.load` takes it; with labels, and the splits
            `"train"` and `"test"`.
        train_limit: int or `None`, the number of training images to use.
        test_limit: int or `None`, the number of test images to use.
        data_dir: as in `kerassl.data.load`.

    Raises:
        ValueError: if the images don't fit the encoder, or have no labels.
        FileNotFoundError: if there is no such encoder, or no such data.

    Example:
    ```python
    subject = kerassl.runs.Evaluation("runs/a", "fashion_mnist_small")
    kerassl.runs.protocol("knn", k=20).measure(subject)["accuracy"]
    ```
    """

    def __init__(
        self,
        source: str | Path,
        data: str,
        *,
        train_limit: int | None = None,
        test_limit: int | None = None,
        data_dir: str | None = None,
    ):
        self.encoder = load_encoder(source)
        height, width, channels = self.encoder.input_shape[1:]
        size = None if None in (height, width) else (height, width)
        limits = {"train": train_limit, "test": test_limit}
        self.splits = {
            split: kerassl_data.load(
                data, split, image_size=size, limit=limit, data_dir=data_dir
            )
            for split, limit in limits.items()
        }
        for split, part in self.splits.items():
            if part.labels is None:
                raise ValueError(
                    f"The {split} images of {data} have no labels. Evaluation "
                    "needs a labelled data set."
                )
            if part.image_shape[-1] != channels:
                raise ValueError(
                    f"The encoder takes images of {channels} channels; those "
                    f"of {data} have {part.image_shape[-1]}."
                )

    def batches(self, split: str, batch_size: int = 256) -> Iterator[tuple]:
        """Yields the images and labels of a split, in order."""
        batches = self.splits[split].batches(batch_size)
        for i in range(len(batches)):
            yield batches[i]

    def features(self, encoder: keras.Model) -> tuple[Any, Any, Any, Any]:
        """Returns an encoder's features and the labels, training first."""
        train, test = self.splits["train"], self.splits["test"]
        return (
            encoders.embed(encoder, train),
            train.labels,
            encoders.embed(encoder, test),
            test.labels,
        )


def untrained(encoder: keras.Model, seed: int = 0) -> keras.Model:
    """Returns an encoder of the same architecture with new random weights.

    They are drawn as `kerassl.encoders.build` draws them. Sets the random seed
    of the process.

    Args:
        encoder: `keras.Model`.
        seed: int.

    Returns:
        A `keras.Model`.
    """
    keras.utils.set_random_seed(seed)
    new = type(encoder).from_config(encoder.get_config())
    restart_vits(new)
    return new


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


PROTOCOLS: dict[str, Callable] = {"knn": KNNProtocol}


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
