"""Stops `fit` when an encoder forgets what it knew as it began."""

import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerassl import encoders
from kerassl.distributed import local_copy, on_one_device, process
from kerassl.evaluation.labels import encode_labels, label_array
from kerassl.evaluation.neighborhoods import classified, nearest_others, shared
from kerassl.evaluation.representation import effective_rank
from kerassl.files import replacing
from kerassl.layers.saved_positions import keep_positions
from kerassl.models import load_keras_file
from kerassl.training.in_memory import read_images
from kerassl.training.inputs import Inputs
from kerassl.training.monitors import Monitor

# A fall of the accuracy by so many standard errors is clear.
ERRORS = 3.0
# Without labels: less than this share of the neighbors, or of the rank, of the
# start. Chosen by hand, to catch only what is clearly destroyed.
LEAST_AGREEMENT, LEAST_RANK = 0.2, 0.5


class StartGuard(Monitor):
    """Compares a trained encoder with its start, and stops when it is worse.

    Training on can destroy what an encoder has learned before: heads that start
    at random, too large a learning rate or too few images do. After each epoch,
    each of the given images is classified by its 20 nearest neighbors among the
    others. The accuracy is logged as `guard_accuracy`. It has clearly fallen if
    more images were lost than won since the start, by more than three standard
    errors.

    Without labels, it logs `start_agreement`, the share of these neighbors that
    an image had at the start too, and `start_rank`, the effective rank of the
    features divided by that of the start. The encoder has clearly changed for
    the worse below 0.2 or 0.5. That says less: a better encoder has other
    neighbors too.

    Args:
        images: array `(N, H, W, C)`, the result of `kerassl.data.load`, or a
            data set as for `fit`, which is read into memory. One or two
            thousand images of the encoder's size.
        labels: array `(N,)`, or `None`.
        start: `keras.Model`, the encoder to compare with; by default the
            model's as training begins.
        best: path of a `.keras` file for the best encoder, or `None`. With
            labels it is the one with the highest accuracy, the start included;
            without them the latest that hasn't fallen. A file that is there
            already counts, as of a resumed run.
        stop: bool. Whether to warn and to stop the training when it has
            fallen. Otherwise it only logs, and sets `fallen`.
        every: int > 0, the number of epochs between two looks.
        batch_size: int, the batch size of the encoder.

    Raises:
        ValueError: if images or labels have another form, or there are fewer
            than 21 images; and when `fit` starts, if the images don't have the
            encoder's size.

    Example:
    ```python
    guard = kerassl.callbacks.StartGuard(images[:1000], best="best.keras")
    model.fit(images, epochs=10, callbacks=[guard])
    encoder = kerassl.load_encoder("best.keras")
    ```
    """

    def __init__(
        self,
        images: Any,
        labels: Any = None,
        start: keras.Model | None = None,
        best: str | Path | None = None,
        stop: bool = True,
        every: int = 1,
        batch_size: int = 256,
    ):
        super().__init__(every)
        self.images = read_images(images)
        self.k = 20
        if len(self.images) <= self.k:
            raise ValueError(
                f"The guard needs more than {self.k} images. Received: "
                f"{len(self.images)}"
            )
        self.labels = None
        self.modes = {"start_agreement": "max", "start_rank": "max"}
        if labels is not None:
            labels = label_array(labels, "labels", len(self.images))
            _, (self.labels,) = encode_labels({"labels": labels})
            self.modes = {"guard_accuracy": "max"}
        self.start = start
        self.best = None if best is None else Path(best)
        self.stop = stop
        self.batch_size = batch_size
        #: What is wrong, in a sentence, or `None`.
        self.fallen: str | None = None

    def set_model(self, model: Any) -> None:
        """Checks that the images have the encoder's size."""
        Inputs(model.encoder.input_shape[1:]).read(self.images)
        super().set_model(model)

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Looks at the start, and at the best encoder of a resumed run."""
        super().on_train_begin(logs)
        self.fallen = None
        features = self._features(self.start or self.model.feature_encoder)
        near = nearest_others(features, self.k)
        self.rank = effective_rank(features)
        self.near = near
        self.right = self._right(near)
        self.highest = float(np.mean(self.right))
        if self.best is None:
            return
        if not self.best.exists():
            self._save(self.start or self.model.feature_encoder)
        elif self.labels is not None:
            features = self._features(load_keras_file(self.best))
            self.highest = np.mean(
                self._right(nearest_others(features, self.k))
            )

    def look(self, epoch: int, logs: dict) -> dict[str, float]:
        """Compares the encoder with its start, and keeps it if it is best."""
        features = self._features(self.model.feature_encoder)
        near = nearest_others(features, self.k)
        if self.labels is None:
            agreement = shared(near, self.near)
            rank = effective_rank(features) / self.rank
            found = {"start_agreement": agreement, "start_rank": rank}
            fallen = agreement < LEAST_AGREEMENT or rank < LEAST_RANK
            words = (
                f"images keep {agreement:.0%} of their nearest neighbors of "
                f"the start, and the features {rank:.0%} of their rank"
            )
            is_best = True
        else:
            right = self._right(near)
            lost = np.sum(self.right & ~right)
            won = np.sum(right & ~self.right)
            accuracy, before = float(np.mean(right)), np.mean(self.right)
            found = {"guard_accuracy": accuracy}
            fallen = lost - won > ERRORS * np.sqrt(lost + won)
            words = (
                f"the kNN accuracy fell from {before:.1%} at the start to "
                f"{accuracy:.1%}"
            )
            is_best = accuracy > self.highest
            self.highest = max(accuracy, self.highest)
        self.fallen = words if fallen else None
        if is_best and not fallen:
            self._save(self.model.feature_encoder)
        return found

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Adds the measurements to the logs; with `stop`, ends a fallen run."""
        self.fallen = None
        super().on_epoch_end(epoch, logs)
        if self.fallen and self.stop:
            self.model.stop_training = True
            if process()[0] == 0:
                kept = f" {self.best} holds the best encoder." * bool(self.best)
                warnings.warn(
                    f"Epoch {epoch + 1}: training destroys what the encoder "
                    f"knew, and was stopped: {self.fallen}.{kept} A lower "
                    "learning rate of the encoder, or more epochs in which it "
                    "is frozen, may help."
                )

    def _right(self, near: np.ndarray) -> np.ndarray:
        if self.labels is None:
            return np.zeros(len(near), "bool")
        return classified(near, self.labels)

    def _features(self, encoder: keras.Model) -> np.ndarray:
        copy = local_copy(encoder)
        return on_one_device(
            lambda: encoders.embed(copy, self.images, None, self.batch_size)
        )

    def _save(self, encoder: keras.Model) -> None:
        """Replaces the file of the best encoder, in the first process."""
        if self.best is None or process()[0]:
            return

        def save() -> None:
            keep_positions(encoder)
            encoder.save(temporary)

        with replacing(self.best) as temporary:
            on_one_device(save)
