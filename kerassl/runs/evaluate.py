"""An encoder and labelled images, to be measured."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

from kerassl import data as kerassl_data
from kerassl import encoders
from kerassl.encoders.kerashub import restart_vits
from kerassl.names import MAX_UNREADABLE
from kerassl.presets import load_encoder
from kerassl.presets.load import open_source
from kerassl.run_folder import read_scores


class Evaluation:
    """An encoder and labelled images, ready to be measured.

    Args:
        source: a run, a preset or whatever else `kerassl.load_encoder` takes.
        data: str, as `kerassl.data.load` takes it; with labels, and the splits
            `"train"` and `"test"`.
        train_limit: int or `None`, the number of training images to use.
        test_limit: int or `None`, the number of test images to use.
        data_dir: as in `kerassl.data.load`.
        max_unreadable: float in [0, 1] or `None`, as there.

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
        max_unreadable: float | None = None,
    ):
        self.encoder = load_encoder(source)
        height, width, channels = self.encoder.input_shape[1:]
        size = None if None in (height, width) else (height, width)
        if max_unreadable is None:
            max_unreadable = MAX_UNREADABLE
        limits = {"train": train_limit, "test": test_limit}
        self.splits = {
            split: kerassl_data.load(
                data,
                split,
                image_size=size,
                limit=limit,
                data_dir=data_dir,
                max_unreadable=max_unreadable,
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

    def features(
        self, encoder: keras.Model, layer: str | None = None
    ) -> tuple[Any, Any]:
        """Returns an encoder's features of the training and the test images.

        Args:
            encoder: `keras.Model` for these images.
            layer: as in `kerassl.encoders.embed`.
        """
        train, test = (
            encoders.embed(encoder, self.splits[split], layer)
            for split in ("train", "test")
        )
        return train, test


def earlier_scores(
    source: str | Path, data: str, encoder: keras.Model
) -> dict[str, dict[str, Any]]:
    """Returns the scores of a run or preset, if it has an encoder's layers.

    Args:
        source: a run or a preset, as `kerassl.load_encoder` takes it.
        data: str, the name of the data set that they must be of.
        encoder: `keras.Model` that it must have the architecture of.

    Returns:
        A dict of a protocol's name to its scores; empty if there are none.

    Raises:
        FileNotFoundError: if there is no such run or preset.
        ValueError: if its encoder has other layers or takes other images.
    """
    other = load_encoder(source)
    if other.input_shape != encoder.input_shape:
        raise ValueError(
            f"{source} takes images of shape {other.input_shape[1:]} instead "
            f"of {encoder.input_shape[1:]}."
        )
    if _layers(other) != _layers(encoder):
        raise ValueError(
            f"{source} has another architecture: {other.name} of "
            f"{other.count_params()} parameters instead of {encoder.name} of "
            f"{encoder.count_params()}, or with its layers in another order."
        )
    preset = open_source(source)
    scores = read_scores(source) if preset is None else preset.info.scores
    return {
        name.removesuffix(f", {data}"): score
        for name, score in scores.items()
        if score.get("data") == data
    }


def _layers(encoder: keras.Model) -> list[tuple]:
    return [
        (type(layer).__name__, [tuple(w.shape) for w in layer.weights])
        for layer in encoder.layers
    ]


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
