"""An encoder and labeled images to measure it on."""

import copy
import functools
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerassl import encoders
from kerassl.data.load import peek_size
from kerassl.encoders.kerashub import restart_backbones
from kerassl.evaluation.labels import encode_labels
from kerassl.models import remade
from kerassl.names import MAX_UNREADABLE
from kerassl.networks import copy_normalization
from kerassl.presets import load_encoder
from kerassl.presets.load import open_source
from kerassl.run_folder import best_note, read_scores
from kerassl.runs.journal import Seen, ignore
from kerassl.runs.rivals import Rival
from kerassl.runs.splits import LabeledSplits
from kerassl.runs.subject import (
    add_encoder,
    add_images,
    check_channels,
    load_size,
    open_encoder,
    recorded_range,
)
from kerassl.value_range import Stated


class Evaluation:
    """An encoder and labeled images, loaded and checked.

    Args:
        source: a run, a preset or another source that `kerassl.load_encoder`
            takes.
        data: str, as in `kerassl.data.load`, a labeled data set. Protocols
            learn from its split `"train"` and score `"test"`, or
            `"validation"` if there are no labeled test images. Without either,
            a fifth of each class of `"train"` is held out, the same images
            each time.
        train: str, the data to learn from instead.
        test: str, the data to score instead; all of it if it has no splits.
        train_limit: int or `None`, the number of training images to use.
        test_limit: int or `None`, the number of test images to use.
        data_dir: as in `kerassl.data.load`.
        max_unreadable: as in `kerassl.data.load`.
        value_range: as in `kerassl.data.load`; by default that of the images
            that the encoder learned from.

    Raises:
        ValueError: if the encoder's weights aren't finite, the images don't
            fit the encoder or have no labels, `train` and `test` have no class
            in common, or an image is in both.
        FileNotFoundError: if the encoder or the data don't exist.

    Example:
    ```python
    subject = kerassl.runs.Evaluation("runs/a", "fashion_mnist_small")
    kerassl.runs.protocol("knn", k=20).measure(subject)["accuracy"]
    ```
    """

    def __init__(
        self,
        source: str | Path,
        data: str | None = None,
        *,
        train: str | None = None,
        test: str | None = None,
        train_limit: int | None = None,
        test_limit: int | None = None,
        data_dir: str | None = None,
        max_unreadable: float = MAX_UNREADABLE,
        value_range: Stated = None,
    ):
        self.encoder = open_encoder(source)
        self._load = functools.cache(
            functools.partial(
                LabeledSplits,
                data,
                train,
                test,
                train_limit=train_limit,
                test_limit=test_limit,
                data_dir=data_dir,
                max_unreadable=max_unreadable,
                channels=self.encoder.input_shape[-1],
                value_range=value_range or recorded_range(source),
            )
        )
        self._specs = {spec for spec in (data, train, test) if spec is not None}
        self._data_dir = data_dir
        splits = self._load(image_size=load_size(self.encoder))
        self.splits = splits.parts
        # The name of the data in scores; then what is unusual about the
        # splits, as entries of the scores and as sentences.
        self.data = splits.name
        self.settings = splits.settings
        if (found := self.splits["train"].value_range) is not None:
            self.settings = {**self.settings, "range": str(found)}
        self.notes = splits.notes
        if note := best_note(source):
            self.notes.append(note)
        for part in self.splits.values():
            check_channels(self.encoder, part)

    def beside(self, rival: Rival) -> "Evaluation":
        """Returns the evaluation of another encoder on the same images.

        Photos of a folder are decoded for the size that it takes. Images that
        are all of one size are resized for it from that size.

        Args:
            rival: the result of `kerassl.runs.open_rival`.

        Returns:
            An `Evaluation` of the rival.

        Raises:
            ValueError: if it doesn't take such images.
        """
        other = copy.copy(self)
        size = load_size(self.encoder)
        if rival.size != size:
            vary = len(self._specs) > 1 or any(
                peek_size(spec, data_dir=self._data_dir)[1]
                for spec in self._specs
            )
            size = rival.size if vary else None
        other.splits = self._load(image_size=size).parts
        other.encoder = rival.at(other.splits["train"].image_shape)
        return other

    def batches(
        self, split: str, batch_size: int = 256, seen: Seen = ignore
    ) -> Iterator[tuple]:
        """Yields the images and labels of a split, in order.

        Args:
            split: `"train"` or `"test"`.
            batch_size: int > 0.
            seen: called with the number of images in a batch once the next
                batch is requested.
        """
        batches = self.splits[split].batches(batch_size)
        for i in range(len(batches)):
            batch = batches[i]
            yield batch
            seen(len(batch[1]))

    def features(
        self,
        encoder: keras.Model,
        layer: str | None = None,
        seen: Seen = ignore,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns the features of the training and the test images.

        Args:
            encoder: `keras.Model` that takes these images.
            layer: as in `kerassl.encoders.embed`.
            seen: as in `batches`.
        """
        model = encoder
        if layer is not None:
            model = encoders.layer_features(encoder, layer)
        train, test = (
            np.concatenate(
                [
                    model.predict_on_batch(images)
                    for images, _ in self.batches(split, seen=seen)
                ]
            ).astype("float32", copy=False)
            for split in ("train", "test")
        )
        return train, test

    def digest(self) -> str:
        """Returns a hash of the encoder, the images and the labels.

        Of large arrays it covers a thousand images, and of files the names.
        """
        found = hashlib.sha256()
        add_encoder(found, self.encoder)
        for split, part in self.splits.items():
            classes, (numbers,) = encode_labels({split: part.labels})
            words = repr((split, part.name, part.images.shape, classes))
            words += str(part.value_range or "")
            found.update(words.encode("utf-8", "surrogateescape"))
            found.update(numbers.tobytes())
            add_images(found, part)
        return found.hexdigest()


def earlier_scores(
    source: str | Path, data: str, encoder: keras.Model
) -> dict[str, dict[str, Any]]:
    """Returns the scores of a run or preset of the same architecture.

    Args:
        source: a run or a preset, as in `kerassl.load_encoder`.
        data: str, the name of the data set. Scores on others are left out.
        encoder: `keras.Model` with the required architecture.

    Returns:
        A dict from a protocol's name to its scores; empty if there are none.

    Raises:
        FileNotFoundError: if the run or preset doesn't exist.
        ValueError: if its encoder has other layers or another input shape.
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
            f"{encoder.count_params()}, or its layers have another order or "
            "other settings."
        )
    preset = open_source(source)
    scores = read_scores(source) if preset is None else preset.info.scores
    return {
        name.removesuffix(f", {data}"): score
        for name, score in scores.items()
        if score.get("data") == data
    }


def _layers(encoder: keras.Model) -> tuple:
    """Returns everything that the scores of random weights depend on."""
    return (
        type(encoder).__name__,
        [tuple(w.shape) for w in encoder.weights],
        json.dumps(_settings(encoder.get_config()), sort_keys=True),
    )


def _settings(config: Any) -> Any:
    """Returns a layer's config without entries that don't affect outputs."""
    if isinstance(config, dict):
        return {
            str(key): _settings(value)
            for key, value in config.items()
            if key not in _NO_SETTINGS
        }
    if isinstance(config, (list, tuple)):
        return [_settings(value) for value in config]
    if isinstance(config, (str, int, float, bool, type(None))):
        return config
    return type(config).__name__


# Entries of layer configs, at any depth, that don't affect outputs.
_NO_SETTINGS = {
    "name",
    "trainable",
    "dtype",
    "seed",
    "module",
    "registered_name",
    "build_config",
    "keras_history",
    "input_layers",
    "output_layers",
}


def untrained(encoder: keras.Model) -> keras.Model:
    """Returns an encoder of the same architecture with new random weights.

    Weights are initialized as in `kerassl.encoders.build`. This sets the
    random seed of the process, to 0.

    Args:
        encoder: `keras.Model`.

    Returns:
        A `keras.Model`.
    """
    keras.utils.set_random_seed(0)
    new = remade(encoder)
    restart_backbones(new)
    copy_normalization(encoder, new)
    return new
