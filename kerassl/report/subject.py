"""A run and the images to show of it."""

from pathlib import Path

import numpy as np

from kerassl.data import ImageData
from kerassl.data.errors import SplitError
from kerassl.data.spread import spread
from kerassl.presets import load_encoder
from kerassl.recipes import Recipe
from kerassl.run_folder import (
    CHECKPOINT,
    read_history,
    read_scores,
    read_settings,
)
from kerassl.runs.checkpoint import load_checkpoint
from kerassl.runs.subject import load_images

# The number of training images searched for neighbors, per test image.
BANK = 4


class Subject:
    """A run, read and checked, and images to show.

    Args:
        folder: as in `kerassl.report.write`.
        data: as in `kerassl.report.write`.
        images: as in `kerassl.report.write`.
        data_dir: as in `kerassl.report.write`.
        max_unreadable: as in `kerassl.report.write`.

    Raises:
        FileNotFoundError: if there is no run, or its data are missing.
        ValueError: if a file of the run is broken, or the images don't fit the
            encoder.
    """

    def __init__(
        self,
        folder: str | Path,
        data: str | None = None,
        images: int = 500,
        data_dir: str | None = None,
        max_unreadable: float | None = None,
    ):
        self.folder = Path(folder)
        self.settings = read_settings(folder)
        self.recipe = Recipe.from_dict(self.settings["recipe"])
        self.history = read_history(folder)
        self.scores = read_scores(folder)
        self.encoder = load_encoder(folder)
        self.data = self.settings["data"] if data is None else data
        if data_dir is None:
            data_dir = self.settings.get("data_dir")
        if max_unreadable is None:
            max_unreadable = self.settings["max_unreadable"]
        self._load_images(images, data_dir, max_unreadable)
        checkpoint = self.folder / CHECKPOINT
        # People delete it to save space; most sections need only the encoder.
        self.model = (
            load_checkpoint(checkpoint)[0] if checkpoint.exists() else None
        )

    def _load_images(
        self, count: int, data_dir: str | None, max_unreadable: float
    ) -> None:
        def load(split: str, limit: int) -> ImageData:
            return load_images(
                self.encoder,
                self.folder,
                self.data,
                split,
                limit=limit,
                data_dir=data_dir,
                max_unreadable=max_unreadable,
            )

        self.note = ""
        try:
            self.queries = load("test", count)
            self.bank = load("train", BANK * count)
        except SplitError as error:
            self.note = f" All are training images: {error}"
            train = load("train", (1 + BANK) * count)
            chosen = np.arange(len(train.images)) % (1 + BANK) == 0
            self.queries = train.select(np.flatnonzero(chosen))
            self.bank = train.select(np.flatnonzero(~chosen))

    def spread(self, count: int) -> np.ndarray:
        """Returns the indices of `count` queries, evenly spaced."""
        return spread(len(self.queries.images), count)
