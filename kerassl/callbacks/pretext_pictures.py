"""Draws the pretext task during `fit`."""

from pathlib import Path
from typing import Any

import keras

from kerassl.distributed import local_copy, on_one_device, process
from kerassl.files import replacing
from kerassl.training.in_memory import read_images
from kerassl.training.inputs import Inputs
from kerassl.visualization.figures import load_matplotlib
from kerassl.visualization.pictures import pretext


class PretextPictures(keras.callbacks.Callback):
    """Writes a picture of the pretext task at the end of epochs.

    The picture is that of `kerassl.visualization.pretext`. Each one shows the
    same random views of the same images, so that pictures differ only by what
    the model has learned. Drawing doesn't change the model's random state.

    Args:
        images: array `(N, H, W, C)` of a few images, uint8 or float in
            [0, 255]; the result of `kerassl.data.load`; or a small data set as
            for `fit`. For MAE, SimMIM and the context encoder they have the
            encoder's size.
        folder: the folder for `epoch_0001.png` and so on; it is created if it
            is missing.
        every: int > 0. Draws after every `every` epochs, and after the last.
        seed: int, the seed of the views.

    Raises:
        ImportError: without matplotlib.
        ValueError: if the shape, dtype or range of the images is wrong, or
            `every` is less than 1.

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
        load_matplotlib()  # Fails now instead of after an epoch.
        self.images = read_images(images)
        if every < 1:
            raise ValueError(f"`every` must be at least 1. Received: {every}")
        self.folder = Path(folder)
        self.every = every
        self.seed = seed

    def set_model(self, model: Any) -> None:
        """Checks that the images are what the picture needs."""
        if hasattr(model, "reconstruct"):
            Inputs(model.encoder.input_shape[1:]).read(self.images)
        else:
            model.inputs_for().read(self.images)
        super().set_model(model)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Writes the picture, if one is due."""
        last = epoch + 1 == self.params.get("epochs")
        is_due = last or (epoch + 1) % self.every == 0
        if not is_due or process()[0]:  # Only the first process writes.
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"epoch_{epoch + 1:04d}.png"
        model = local_copy(self.model)
        figure = on_one_device(lambda: pretext(model, self.images, self.seed))
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png", dpi=100)
