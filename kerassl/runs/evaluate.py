"""Measures what an encoder has learned."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from kerassl import data as kerassl_data
from kerassl import encoders, evaluation
from kerassl.recipes.choices import check_choice
from kerassl.runs.run import ENCODER


def load_encoder(source: str | Path) -> keras.Model:
    """Loads an encoder from wherever it is.

    Args:
        source: the folder of a run, or another one with an `encoder.keras`; or
            a `.keras` file, of an encoder or of a training model.

    Returns:
        A `keras.Model` from images to features.

    Raises:
        FileNotFoundError: if there is none; says what was looked for.
    """
    path = Path(source)
    if path.is_dir():
        path = path / ENCODER
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no encoder in {source}. Looked for {path}; an encoder "
            f"is a run's folder, a folder with {ENCODER}, or a .keras file."
        )
    model = keras.saving.load_model(path, compile=False)
    return encoders.as_encoder(getattr(model, "encoder", model))


class Evaluation:
    """An encoder and labelled images, ready to be measured.

    Args:
        source: as in `load_encoder`.
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

    Sets the random seed of the process.

    Args:
        encoder: `keras.Model`.
        seed: int.

    Returns:
        A `keras.Model`.
    """
    keras.utils.set_random_seed(seed)
    return type(encoder).from_config(encoder.get_config())


@dataclasses.dataclass(frozen=True)
class KNNProtocol:
    """kNN accuracy, and that of the same encoder with random weights.

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
        """Returns `accuracy`, `untrained_accuracy` and the settings."""
        scores, floor = (
            evaluation.knn(
                *subject.features(encoder),
                k=self.k,
                temperature=self.temperature,
            )
            for encoder in (subject.encoder, untrained(subject.encoder))
        )
        return {**scores, "untrained_accuracy": floor["accuracy"]}


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
