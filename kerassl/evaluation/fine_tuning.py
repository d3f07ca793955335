"""Supervised training of an encoder, or of a linear layer on top of it."""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from kerassl import augmentation, encoders, optimizers
from kerassl.data import ImageData
from kerassl.data.batches import CROPS
from kerassl.encoders.graph import vit_layers
from kerassl.evaluation.few_labels import split_off
from kerassl.evaluation.labeled import labeled_sets
from kerassl.evaluation.labels import check_classes
from kerassl.execution import LentModel
from kerassl.models import remade
from kerassl.networks import set_trainable, set_weights
from kerassl.training.inputs import Inputs
from kerassl.training.step import build_optimizer

# Peak learning rates to choose from: SGD's for a batch of 256, and AdamW's for
# transformers.
SGD_RATES = (0.02, 0.1, 0.5)
ADAMW_RATES = (1e-4, 5e-4, 2e-3)
BATCH_SIZE = 64
# The share of an image's area that a training crop covers.
CROP_AREA = (0.35, 1.0)


class Classifier(LentModel):
    """An encoder and a linear layer, trained on random crops.

    Args:
        encoder: `keras.Model` from images to features, trained too unless it
            is frozen.
        classes: int, the number of classes.
        frozen: bool. Whether the encoder is frozen, in inference mode.
        seed: int, of the crops.
    """

    def __init__(
        self,
        encoder: keras.Model,
        classes: int,
        frozen: bool = False,
        seed: int = 0,
    ):
        super().__init__(autocast=False)
        self.encoder = encoder
        set_trainable(encoder, not frozen)
        self.crops = augmentation.crop_flip(
            encoders.image_size(encoder), CROP_AREA, seed
        )
        # Removes the scale of the features, and adds nothing that a linear
        # layer couldn't express.
        self.norm = keras.layers.BatchNormalization(
            momentum=0.9, scale=False, center=False, name="features_norm"
        )
        self.linear = keras.layers.Dense(classes, name="linear")
        self.norm.build(encoder.output_shape)
        self.linear.build(encoder.output_shape)
        self.built = True

    def call(self, images: Any, training: bool = False) -> Any:
        """Returns logits `(N, classes)`."""
        if isinstance(images, Mapping):
            # Photos, cut while they were decoded.
            (images,) = self.crops(images[CROPS]).values()
        elif training:
            (images,) = self.crops(images).values()
        features = self.encoder(
            images, training=training and self.encoder.trainable
        )
        return self.linear(self.norm(features, training=training))


def fine_tune(
    encoder: keras.Model,
    train: Any,
    test: Any,
    *,
    frozen: bool = False,
    epochs: int | None = None,
    batch_size: int = BATCH_SIZE,
    learning_rate: float | Sequence[float] | None = None,
    layer_decay: float = 0.75,
    seed: int = 0,
    verbose: int | str = 0,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> dict[str, Any]:
    """Trains a copy of an encoder with a linear layer on labeled images.

    Images are cropped and flipped at random; photos at their own size. The
    optimizer is SGD with momentum 0.9, or AdamW for transformers, with a cosine
    schedule after a warmup of a tenth; a transformer's earlier blocks learn
    more slowly. Of several learning rates, the one that scores best on a fifth
    of the training labels is used to train on all of them. The test labels
    influence no choice. An untrained encoder gives the supervised baseline.

    Args:
        encoder: `keras.Model` from images to features. It is not changed.
        train: `(images, labels)`: arrays `(N, H, W, C)` and `(N,)` or
            `(N, 1)`, of ints, bools, whole floats, strings or bytes; what
            `kerassl.data.load` returns; or a finite `tf.data`, `PyDataset` or
            torch `DataLoader` of batches of both.
        test: `(images, labels)`, likewise. Labels are compared by value,
            whatever their dtype, or by class name if `train` and `test` name
            their classes differently. Images of a class without training
            images count as errors.
        frozen: bool. Whether to train only the linear layer, which is the
            papers' linear evaluation with augmentation.
        epochs: int; by default 20, or as many as 500 steps take.
        batch_size: int > 1.
        learning_rate: float > 0, or several to choose from. SGD's is for a
            batch of 256 and scaled to `batch_size`. By default one of three.
        layer_decay: float in (0, 1], for transformers: the factor on the
            learning rate from a block to the one before it.
        seed: int, of the linear layer, the order, the crops and the fifth. It
            becomes the random seed of the process.
        verbose: see `keras.Model.fit`.
        callbacks: see `keras.Model.fit`; passed to each fit and to the
            predictions that score it.

    Returns:
        A dict: `accuracy` in [0, 1], the chosen `learning_rate`, `epochs`,
        `train_size`, `test_size`.

    Raises:
        ValueError: if the encoder doesn't take square images, images have
            another shape than it takes, images or labels are invalid, there is
            only one class, or a setting is out of range.

    Example:
    ```python
    train = kerassl.data.load("cifar10", "train", limit=500)
    test = kerassl.data.load("cifar10", "test")
    kerassl.evaluation.fine_tune(encoder, train, test)["accuracy"]
    ```

    Reference:
        - [Chen et al., 2020, SimCLR](https://arxiv.org/abs/2002.05709), for
          few labels
        - [He et al., 2021, MAE](https://arxiv.org/abs/2111.06377), for
          `layer_decay`
    """
    encoders.image_size(encoder)
    train, test, names = labeled_sets(train, test)
    for part in (train, test):
        Inputs(encoder.input_shape[1:]).read(part.images)
    check_classes("Fine-tuning", names, train.labels)
    classes = np.unique(train.labels)
    rates: tuple[float, ...]
    if learning_rate is None:
        rates = default_rates(encoder)
    elif isinstance(learning_rate, Sequence):
        rates = tuple(learning_rate)
    else:
        rates = (learning_rate,)
    for name, value, fits in (
        ("epochs", epochs, epochs is None or epochs >= 1),
        ("batch_size", batch_size, batch_size >= 2),
        ("learning_rate", learning_rate, rates and min(rates) > 0),
        ("layer_decay", layer_decay, 0 < layer_decay <= 1),
    ):
        if not fits:
            raise ValueError(f"`{name}` is out of range. Received: {value}")

    def train_on(part: Any, rate: float) -> tuple[Classifier, int]:
        size = min(batch_size, len(part.labels))
        steps = len(part.labels) // size
        rounds = epochs or default_epochs(len(part.labels), batch_size)
        keras.utils.set_random_seed(seed)
        model = Classifier(_copy(encoder), len(classes), frozen, seed=seed)
        model.compile(
            _optimizer(model, rate, size, rounds * steps, layer_decay),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        build_optimizer(model)
        labels = np.searchsorted(classes, part.labels)
        batches = ImageData(part.images, labels).batches(
            size,
            shuffle=True,
            seed=seed,
            # A last batch of one image would have no batch statistics.
            drop_remainder=True,
        )
        batches.cut(model.crops.crop_plan)
        model.fit(
            batches,
            epochs=rounds,
            shuffle=False,
            verbose=verbose,
            callbacks=list(callbacks),
        )
        return model, rounds

    def score(model: Classifier, part: Any) -> float:
        logits = model.predict(
            part.batches(256), verbose=0, callbacks=list(callbacks)
        )
        finite = np.isfinite(logits).all(axis=1)
        # `argmax` of NaNs is 0, which would score a diverged model by chance.
        right = classes[logits.argmax(axis=1)] == part.labels
        return float(np.mean(right & finite))

    parts = split_off(train.labels, seed=seed) if len(rates) > 1 else None
    chosen = sorted(rates)[len(rates) // 2]
    if parts is not None:
        fitted, held = (train.select(part) for part in parts)
        chosen = max(rates, key=lambda r: score(train_on(fitted, r)[0], held))
    model, rounds = train_on(train, chosen)
    if not all(np.isfinite(w).all() for w in model.get_weights()):
        warnings.warn(
            f"Fine-tuning diverged at the learning rate {chosen:g}: all test "
            "images count as errors. Give a smaller `learning_rate`."
        )
    return {
        "accuracy": score(model, test),
        "learning_rate": chosen,
        "epochs": rounds,
        "train_size": len(train.labels),
        "test_size": len(test.labels),
    }


def default_epochs(images: int, batch_size: int = BATCH_SIZE) -> int:
    """Returns 20 epochs, or as many as 500 steps take."""
    steps = images // min(batch_size, images)
    return max(20, math.ceil(500 / steps))


def default_rates(encoder: keras.Model) -> tuple[float, ...]:
    """Returns the learning rates to choose from."""
    return ADAMW_RATES if vit_layers(encoder) else SGD_RATES


def _copy(encoder: keras.Model) -> keras.Model:
    copy = remade(encoder)
    set_weights(copy, encoder.get_weights())
    return copy


def _optimizer(
    model: Classifier,
    rate: float,
    batch_size: int,
    steps: int,
    layer_decay: float,
) -> keras.optimizers.Optimizer:
    def schedule(
        peak: float,
    ) -> keras.optimizers.schedules.LearningRateSchedule:
        return optimizers.warmup_cosine(peak, steps, steps // 10)

    # In order, from the first to the last.
    parts = vit_layers(model.encoder)
    if not parts:
        return keras.optimizers.SGD(
            schedule(rate * batch_size / 256), momentum=0.9, nesterov=True
        )
    optimizer = optimizers.AdamW(schedule(rate), weight_decay=0.05)
    if not model.encoder.trainable:
        return optimizer
    return optimizers.with_learning_rates(
        optimizer,
        {
            name: schedule(rate * layer_decay ** (len(parts) - i))
            for i, name in enumerate(parts)
        },
    )
