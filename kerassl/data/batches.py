"""Batches for `fit` that a resumed run can reproduce."""

import os
import warnings
from concurrent.futures import Future
from typing import Any, TypeAlias

import keras
import numpy as np

from kerassl.data.cuts import CropPlan
from kerassl.data.photos import Photos
from kerassl.data.shared import size_of
from kerassl.data.stored import native
from kerassl.data.threads import Threads

# `(images, labels)` or `(images,)`. Images that were cut are a dict.
Batch: TypeAlias = tuple[Any, ...]

#: The key of a batch's crops, a dict by the views' names.
CROPS = "crops"
# Two are decoded at the same time, so that no core waits for the last images
# of a batch; only one if two would take more bytes.
_AHEAD = 2
_AHEAD_BYTES = 2**30


class ImageBatches(keras.utils.PyDataset):
    """Batches of images for `fit`, a pure function of seed, epoch and step.

    The order of an epoch's images depends only on `(seed, epoch)`, so that an
    interrupted run continues with exactly the batches that it would have seen.
    Pass `shuffle=False` to `fit`: otherwise Keras shuffles the *order of the
    batches* by Python's global random state.

    `epoch` advances when `fit` finishes an epoch. Set it to start elsewhere.

    Args:
        images: array `(N, height, width, channels)`, or `Photos`.
        labels: array of shape `(N,)`, or `None`.
        batch_size: int > 0, the number of images in a batch.
        shuffle: bool. Whether each epoch has its own random order.
        seed: int >= 0, of that order.
        drop_remainder: bool. Whether to drop a smaller last batch.
        epoch: int >= 0, the epoch to start with.
        start_step: int >= 0, how many steps of the first epoch to skip. Keras
            reads the length of an epoch once per `fit`, so finish a partial
            epoch with a `fit` of one epoch.
        part: `(index, count)`: yields only the rows that belong to process
            `index` of `count` processes that share each batch.

    Raises:
        ValueError: if a batch would be empty or can't be divided among the
            processes, or `start_step` is not a step of the epoch.

    Example:
    ```python
    # Interrupted in epoch 3, after 40 steps. Finish that epoch, then go on.
    rest = data.batches(256, shuffle=True, epoch=3, start_step=40)
    model.fit(rest, initial_epoch=3, epochs=4, shuffle=False)
    batches = data.batches(256, shuffle=True, epoch=4)
    model.fit(batches, initial_epoch=4, epochs=100, shuffle=False)
    ```
    """

    def __init__(
        self,
        images: np.ndarray | Photos,
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
                f"A batch of {batch_size} images can't be divided among "
                f"{part[1]} processes. Choose a multiple of that number."
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
        # Only decoding is worth a thread.
        self._reader = Threads(_AHEAD) if isinstance(images, Photos) else None
        self._uploads: Any = None
        self._cuts: tuple[CropPlan, int] | None = None
        # Batches that are being read, by process, epoch and step.
        self._ahead: dict[tuple[int, int, int], Future[Batch]] = {}
        self._within_epoch = False
        self._fit_reset = False
        self._shortened = False
        self._expected = 0

    def __getstate__(self) -> dict[str, Any]:
        """Returns the state without the batches that are being read."""
        return self.__dict__ | {"_ahead": {}, "_uploads": None}

    def cut(self, plan: CropPlan | None, seed: int | None = None) -> None:
        """Makes the batches crops of the whole photos, cut while decoding.

        The images of a batch are then `{"crops": {view: (n, s, s, 3)}}`. Where
        they are cut depends only on the seed, the epoch and the step. Images
        that are in an array stay as they are.

        Args:
            plan: `CropPlan`, or `None` for photos resized and center cropped.
            seed: int >= 0; by default that of the order.
        """
        self._cuts = None
        if plan is not None and isinstance(self.images, Photos):
            self._cuts = plan, self.seed if seed is None else seed
        self._ahead = {}

    def upload(self, uploads: Any) -> None:
        """Makes the batches tensors on a device, each copied ahead.

        Args:
            uploads: has the methods `begin`, which a thread calls with a batch
                ahead of its step, and `end`, which turns the result into what
                is returned.
        """
        self._uploads = uploads
        self._reader = self._reader or Threads(1)
        self._ahead = {}

    @property
    def workers(self) -> int:
        """Always 1: folders decode in their own threads.

        With more workers, Keras 3.15 fetches batches ahead while it builds a
        model and yields them again in the first epoch, which shifts all later
        epochs.
        """
        # Keras reads this once when a `fit` starts, however the previous one
        # ended. It is the only sign of a new `fit`.
        self._within_epoch = self._fit_reset = self._shortened = False
        return 1

    @workers.setter
    def workers(self, value: int) -> None:
        if value != 1:
            raise ValueError(
                "`ImageBatches` needs workers=1: it decodes in its own "
                "threads, and Keras workers would change the batches of an "
                f"epoch. Received: workers={value}"
            )

    @property
    def batch_sizes(self) -> list[int]:
        """The distinct sizes of this epoch's first and last batch.

        Of a batch that processes share, they count this process's rows.
        """
        count = len(self.images)
        steps = (self.start_step, self.steps_per_epoch - 1)
        sizes = [
            min(self.batch_size, count - i * self.batch_size) // self.part[1]
            for i in steps
        ]
        return list(dict.fromkeys(sizes))

    def __len__(self) -> int:
        """Returns the number of steps in the current epoch."""
        return self.steps_per_epoch - self.start_step

    def __getitem__(self, index: int) -> Batch:
        """Returns the batch `(images, labels)` or `(images,)` at a step."""
        if not 0 <= index < len(self):
            raise IndexError(f"Step {index} is out of range({len(self)}).")
        if self._within_epoch:
            self._warn_if_shuffled(index)
        step = index + self.start_step
        if self._reader is None:
            return self._read(self.epoch, step)
        # Read the next batches while the model trains on this one. The process
        # is part of the key: a forked one can't wait for its parent's threads.
        stop = min(step + self._ahead_count, self.steps_per_epoch - 1) + 1
        keys = [(os.getpid(), self.epoch, i) for i in range(step, stop)]
        known = self._ahead
        self._ahead = {
            key: known.get(key) or self._reader.submit(self._begin, *key[1:])
            for key in keys
        }
        future = self._ahead.pop(keys[0])
        batch = future.result()
        return batch if self._uploads is None else self._uploads.end(batch)

    @property
    def _ahead_count(self) -> int:
        """How many batches are read ahead: at least one."""
        if not isinstance(self.images, Photos):  # They are only uploaded.
            return 1
        plan = self._cuts[0] if self._cuts is not None else None
        rows = self.batch_size // self.part[1]
        size = size_of(self.images.layout(rows, plan))
        return max(1, min(_AHEAD, _AHEAD_BYTES // size))

    def _begin(self, epoch: int, step: int) -> Any:
        batch = self._read(epoch, step)
        return batch if self._uploads is None else self._uploads.begin(batch)

    def _read(self, epoch: int, step: int) -> Batch:
        start = step * self.batch_size
        order = self._epoch_order(epoch)
        indices = order[start : start + self.batch_size]
        if isinstance(self.images, Photos) and (
            self._cuts is not None or not self.images.in_memory
        ):
            rest = order[start + self.batch_size :]
            self.images.expect(rest, self.batch_size)
        process, processes = self.part
        size = len(indices) // processes
        rows = slice(process * size, (process + 1) * size)
        images: Any
        if self._cuts is not None and isinstance(self.images, Photos):
            plan, seed = self._cuts
            # The last number tells this sequence from that of the order.
            rng = np.random.default_rng([seed, epoch, step, 1])
            uniforms = rng.random((len(indices), plan.num_uniforms))
            crops, indices = self.images.read_cuts(
                indices[rows], plan, uniforms[rows]
            )
            images = {CROPS: crops}
        elif isinstance(self.images, Photos):
            # Another image replaces one that has become unreadable.
            images, indices = self.images.read(indices[rows])
        else:
            indices = indices[rows]
            images = native(np.asarray(self.images[indices]))
        if self.labels is None:
            return (images,)
        return images, self.labels[indices]

    def _epoch_order(self, epoch: int) -> np.ndarray:
        if self._order is None or self._order[0] != epoch:
            count = len(self.images)
            if self.shuffle:
                rng = np.random.default_rng([self.seed, epoch])
                if isinstance(self.images, Photos):
                    self._order = epoch, self.images.permutation(rng)
                else:
                    self._order = epoch, rng.permutation(count)
            else:
                self._order = epoch, np.arange(count)
        return self._order[1]

    def _warn_if_shuffled(self, index: int) -> None:
        if index not in (0, self._expected):
            warnings.warn(
                "Keras shuffles the order of these batches, so the run can't "
                "be repeated or resumed exactly. Pass `shuffle=False` to "
                "`fit`: `ImageBatches` shuffles the images itself.",
                stacklevel=2,
            )
        self._expected = index + 1

    def on_epoch_begin(self) -> None:
        """Marks the start of an epoch; called by Keras."""
        if self._shortened:
            raise ValueError(
                "`start_step` is for finishing one epoch: Keras would shorten "
                "the next epochs of this `fit` too. Fit these batches with "
                "`epochs=initial_epoch + 1`, then make new ones with "
                f"`epoch={self.epoch}`."
            )
        self._within_epoch = True
        self._expected = 0

    def on_epoch_end(self) -> None:
        """Advances to the next epoch; called by Keras."""
        # Each `fit` first resets its iterator with this same call: before any
        # epoch if the model is built, after an abandoned one if Keras took a
        # batch to build it. Neither ends an epoch.
        if self._within_epoch and self._fit_reset:
            self.epoch += 1
            self._shortened = self.start_step > 0
            self.start_step = 0
        self._fit_reset = True
        self._within_epoch = False
