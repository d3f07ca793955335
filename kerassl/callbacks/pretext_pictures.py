"""Draws during `fit` what the model sees and guesses."""

import os
import uuid
from pathlib import Path
from typing import Any

import keras

from kerassl.distributed import local_copy, on_one_device, process
from kerassl.training.in_memory import read_images
from kerassl.visualization.pictures import load_matplotlib, pretext


class PretextPictures(keras.callbacks.Callback):
    """Writes a picture of the pretext task at the end of epochs.

    The picture is `kerassl.visualization.pretext`'s, of the same images and the
    same random views each time, so that the pictures show what was learned.
    They don't change what the model draws in training.

    Args:
        images: array `(N, H, W, C)`, uint8 or float in [0, 255], a few; or what
            `kerassl.data.load` returns, or a small data set as for `fit`.
        folder: where `epoch_0001.png` and so on are written; it is made if it
            is missing.
        every: int > 0. Draws after each so many epochs, and after the last.
        seed: int, of the views.

    Raises:
        ImportError: without matplotlib.
        ValueError: if the images have another shape, type or range, or `every`
            is less than 1.

    Example:
    ```python
    pictures = kerassl.callbacks.PretextPictures(images[:8], "pictures")
    model.fit(images, epochs=100, callbacks=[pictures])
    ```
    """

    def __init__(
        self, images: Any, folder: str | Path, every: int = 1, seed: int = 0
    ):
        super().__init__()
        load_matplotlib()  # Its lack shows now, and not after an epoch.
        self.images = read_images(images)
        if every < 1:
            raise ValueError(f"`every` must be at least 1. Received: {every}")
        self.folder = Path(folder)
        self.every = every
        self.seed = seed

    def set_model(self, model: Any) -> None:
        """Refuses images of other channels than the model's, at the start."""
        model.inputs_for().read(self.images)
        super().set_model(model)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Writes the picture, or nothing if the epoch isn't due."""
        last = epoch + 1 == self.params.get("epochs")
        is_due = last or (epoch + 1) % self.every == 0
        if not is_due or process()[0]:  # The first process writes.
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"epoch_{epoch + 1:04d}.png"
        temporary = path.with_name(
            f".partial-{uuid.uuid4().hex[:12]}-{path.name}"
        )
        model = local_copy(self.model)
        figure = on_one_device(lambda: pretext(model, self.images, self.seed))
        try:
            figure.savefig(temporary, format="png", dpi=100)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
