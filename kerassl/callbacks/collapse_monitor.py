"""Warns during `fit` of collapsed features, or a loss that doesn't improve."""

import warnings
from typing import Any

from kerassl.evaluation.health import (
    FEWEST_IMAGES,
    feature_problems,
    loss_problem,
)
from kerassl.evaluation.representation import effective_rank, feature_spread
from kerassl.training.in_memory import read_images
from kerassl.training.inputs import Inputs
from kerassl.training.monitors import Monitor


class CollapseMonitor(Monitor):
    """Detects collapse at the end of epochs, and suggests what to try.

    It logs `effective_rank`, the number of dimensions that the features use,
    and `feature_spread`, which is 0 if all features point the same way. It
    warns once of each problem: if these show that all images have nearly the
    same features, or if for two epochs the loss is that of a collapsed model
    (the method's `collapsed_loss`: ln K for SwAV, -1 for SimSiam).

    Args:
        images: array `(N, H, W, C)`, the result of `kerassl.data.load`, or a
            data set as for `fit`, which is read into memory. A few hundred
            images of the encoder's size, with or without labels. The effective
            rank can't exceed their number. At least 20.
        stop: bool. Whether to stop the training, at the end of the epoch.
        every: int > 0, the number of epochs between measurements of the
            features. The first and the last epoch are measured too; the others
            log the last values.
        batch_size: int, the batch size of the encoder.

    Raises:
        ValueError: if the images have another form or `every` is less than 1;
            and when `fit` starts, if the images don't have the encoder's size.

    Example:
    ```python
    monitor = kerassl.callbacks.CollapseMonitor(images[:512], stop=True)
    model.fit(images, epochs=100, callbacks=[monitor])
    ```

    Reference:
        - [Garrido et al., 2022, RankMe](https://arxiv.org/abs/2210.02885)
        - [Chen and He, 2020, SimSiam](https://arxiv.org/abs/2011.10566)
    """

    modes = {"effective_rank": "max", "feature_spread": "max"}

    def __init__(
        self,
        images: Any,
        stop: bool = False,
        every: int = 1,
        batch_size: int = 256,
    ):
        super().__init__(every)
        self.images = read_images(images)
        if len(self.images) < FEWEST_IMAGES:
            raise ValueError(
                f"The monitor needs at least {FEWEST_IMAGES} images, since "
                "fewer look alike to any encoder. Received: "
                f"{len(self.images)}"
            )
        self.stop = stop
        self.batch_size = batch_size
        self.problems: dict[str, str] = {}
        self.epochs_at_collapse = 0
        self.warned: set[str] = set()

    def set_model(self, model: Any) -> None:
        """Checks that the images have the encoder's size."""
        Inputs(model.encoder.input_shape[1:]).read(self.images)
        super().set_model(model)

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Resets the counters."""
        super().on_train_begin(logs)
        self.epochs_at_collapse = 0
        self.warned = set()

    def look(self, epoch: int, logs: dict) -> dict[str, float]:
        """Measures the features, and stores what is wrong with them."""
        features = self.model.embed(self.images, batch_size=self.batch_size)
        rank, spread = effective_rank(features), feature_spread(features)
        self.problems = feature_problems(rank, spread, features.shape)
        return {"effective_rank": rank, "feature_spread": spread}

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Adds the measurements to the logs, and warns of problems."""
        if logs is None:
            return
        self.problems = {}
        problem = loss_problem(self.model, logs["loss"])
        super().on_epoch_end(epoch, logs)
        problems = dict(self.problems)
        self.epochs_at_collapse = self.epochs_at_collapse + 1 if problem else 0
        # An untrained model may have this loss too, so one epoch isn't enough.
        if problem and self.epochs_at_collapse > 1:
            problems["loss"] = problem
        for kind, words in problems.items():
            if kind not in self.warned:
                self.warned.add(kind)
                advice = self.model.collapse_advice
                warnings.warn(f"Epoch {epoch + 1}: {words} {advice}")
        if problems and self.stop:
            self.model.stop_training = True
