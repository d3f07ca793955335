"""Batches for `fit`, the same again when a run is resumed."""

import os
import warnings
from concurrent.futures import Future
from typing import Any

import keras
import numpy as np

from kerassl.data.folder import ImageFolder
from kerassl.data.threads import Threads


class ImageBatches(keras.utils.PyDataset):
    """Batches of images for `fit`, a pure function of seed, epoch and step.

    The order of an epoch's images depends on `(seed, epoch)` alone, so a run
    that was interrupted and goes on sees exactly the batches that it would
    have seen. Pass `shuffle=False` to `fit`: Keras otherwise shuffles the
    *order of the batches* by Python's global random state.

    ```python
    # Interrupted in epoch 3, after 40 steps. Finish that epoch, then go on.
    rest = data.batches(256, shuffle=True, epoch=3, start_step=40)
    model.fit(rest, initial_epoch=3, epochs=4, shuffle=False)
    batches = data.batches(256, shuffle=True, epoch=4)
    model.fit(batches, initial_epoch=4, epochs=100, shuffle=False)
    ```

    `epoch` moves on when `fit` ends an epoch. Set it to start elsewhere.

    Args:
        images: An array `(N, height, width, channels)` or an `ImageFolder`.
        labels: Integers of shape `(N,)`, or `None`.
        batch_size: How many images are in a batch.
        shuffle: Whether each epoch has its own random order.
        seed: The seed of that order.
        drop_remainder: Whether to leave out a last, smaller batch.
        epoch: The epoch to start with.
        start_step: How many steps of the first epoch to skip. Keras takes the
            length of an epoch once per `fit`, so finish a skipped-into epoch
            with a `fit` of one epoch.
        part: `(place, parts)`: of each batch only the rows of one of several
            processes, which share it out.
    """

    def __init__(
        self,
        images: Any,
        labels: np.ndarray | None = None,
        *,
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
        drop_remainder: bool = False,
        epoch: int = 0,
        start_step: int = 0,
        part: tuple[int, int] = (0, 1),
    ):
        """Reads no image yet."""
        super().__init__()
        count = len(images)
        steps = 0
        if batch_size > 0:
            steps = (count if drop_remainder else count + batch_size - 1) // (
                batch_size
            )
        if steps < 1:
            raise ValueError(
                "`batch_size` must be at least 1, and at most the number of "
                f"images with `drop_remainder=True`. Received: "
                f"batch_size={batch_size} for {count:,} images"
            )
        if not 0 <= start_step < steps:
            raise ValueError(
                f"`start_step` must be in [0, {steps}), as an epoch has "
                f"{steps} steps. Received: start_step={start_step}"
            )
        if batch_size % part[1]:
            raise ValueError(
                f"A batch of {batch_size} images can't be shared out to "
                f"{part[1]} processes. Choose a multiple of it."
            )
        self.part = part
        self.images = images
        self.labels = labels
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = epoch
        self.start_step = start_step
        self.steps_per_epoch = steps
        self._order: tuple[int, np.ndarray] | None = None
        # Only decoding is worth a thread of its own.
        self._reader = Threads(1) if isinstance(images, ImageFolder) else None
        self._ahead: tuple[tuple[int, int, int], Future] | None = None
        self._within_epoch = False
        self._fit_reset = False
        self._shortened = False
        self._expected = 0

    def __getstate__(self) -> dict[str, Any]:
        """Returns all but the batch that is read ahead."""
        return self.__dict__ | {"_ahead": None}

    @property
    def workers(self) -> int:
        """Always 1: a folder decodes in threads of its own.

        With more, Keras 3.15 fetches ahead while it builds a model, and gives
        those batches to the first epoch once more, which shifts every later
        one.
        """
        # Keras reads this once, when a `fit` starts, whatever became of the
        # `fit` before: the only sign of a new one that it gives.
        self._within_epoch = self._fit_reset = self._shortened = False
        return 1

    @workers.setter
    def workers(self, value: int) -> None:
        if value != 1:
            raise ValueError(
                "`ImageBatches` needs workers=1: it decodes in its own "
                "threads, and Keras workers would change which batches an "
                f"epoch has. Received: workers={value}"
            )

    @property
    def batch_sizes(self) -> list[int]:
        """The sizes of this epoch's first and last batch, without repeats."""
        count = len(self.images)
        steps = (self.start_step, self.steps_per_epoch - 1)
        sizes = [
            min(self.batch_size, count - i * self.batch_size) for i in steps
        ]
        return list(dict.fromkeys(sizes))

    def __len__(self) -> int:
        """Returns the number of steps in the current epoch."""
        return self.steps_per_epoch - self.start_step

    def __getitem__(self, index: int) -> tuple:
        """Returns the batch `(images, labels)` or `(images,)` at a step."""
        if not 0 <= index < len(self):
            raise IndexError(f"Step {index} is out of range({len(self)}).")
        if self._within_epoch:
            self._warn_if_shuffled(index)
        step = index + self.start_step
        if self._reader is None:
            return self._read(self.epoch, step)
        # Decode the next batch while the model trains on this one.
        # A forked process doesn't get what its parent reads.
        key = (os.getpid(), self.epoch, step)
        if self._ahead is not None and self._ahead[0] == key:
            future = self._ahead[1]
        else:
            future = self._reader.submit(self._read, self.epoch, step)
        if step + 1 < self.steps_per_epoch:
            ahead = self._reader.submit(self._read, self.epoch, step + 1)
            self._ahead = (os.getpid(), self.epoch, step + 1), ahead
        return future.result()

    def _read(self, epoch: int, step: int) -> tuple:
        start = step * self.batch_size
        indices = self._epoch_order(epoch)[start : start + self.batch_size]
        place, parts = self.part
        size = len(indices) // parts
        indices = indices[place * size : (place + 1) * size]
        if isinstance(self.images, ImageFolder):
            # An image that can't be read any more comes back as another one.
            images, indices = self.images.read(indices)
        else:
            images = np.asarray(self.images[indices])
        if self.labels is None:
            return (images,)
        return images, self.labels[indices]

    def _epoch_order(self, epoch: int) -> np.ndarray:
        if self._order is None or self._order[0] != epoch:
            count = len(self.images)
            if self.shuffle:
                order = np.random.default_rng([self.seed, epoch])
                self._order = epoch, order.permutation(count)
            else:
                self._order = epoch, np.arange(count)
        return self._order[1]

    def _warn_if_shuffled(self, index: int) -> None:
        if index not in (0, self._expected):
            warnings.warn(
                "Keras shuffles the order of these batches, so that the run "
                "can't be repeated or resumed exactly. Pass `shuffle=False` "
                "to `fit`: `ImageBatches` shuffles the images itself.",
                stacklevel=2,
            )
        self._expected = index + 1

    def on_epoch_begin(self) -> None:
        """Marks the start of an epoch; called by Keras."""
        if self._shortened:
            raise ValueError(
                "`start_step` finishes one epoch: Keras would cut the next "
                "epochs of this `fit` short too. Fit these batches with "
                "`epochs=initial_epoch + 1`, then make new ones with "
                f"`epoch={self.epoch}`."
            )
        self._within_epoch = True
        self._expected = 0

    def on_epoch_end(self) -> None:
        """Moves on to the next epoch; called by Keras."""
        # Each `fit` first resets its iterator by this same call: with no epoch
        # begun if the model is built, with one begun and abandoned if Keras
        # took a batch to build it. Neither is the end of an epoch.
        if self._within_epoch and self._fit_reset:
            self.epoch += 1
            self._shortened = self.start_step > 0
            self.start_step = 0
        self._fit_reset = True
        self._within_epoch = False
