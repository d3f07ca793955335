"""Says during `fit` when features collapse, or nothing is learned."""

import warnings
from typing import Any

from kerassl.evaluation.health import feature_problems, loss_problem
from kerassl.evaluation.representation import effective_rank, feature_spread
from kerassl.training.in_memory import read_images
from kerassl.training.inputs import Inputs
from kerassl.training.monitors import Monitor


class CollapseMonitor(Monitor):
    """Looks for collapse at the end of epochs, and says what to try.

    It logs `effective_rank`, the number of dimensions that the features of the
    images use, and `feature_spread`, 0 if they all point the same way. It
    warns, once for each problem, if these say that all images look alike, or
    if the loss has been where it is when they do (`collapsed_loss` of the
    method: ln K for SwAV, -1 for SimSiam) for two epochs.

    Args:
        images: array `(N, H, W, C)`, what `kerassl.data.load` returns, or a
            data set as for `fit`, which is read into memory. A few hundred
            images of the encoder's size, with or without labels; the more, the
            larger the ranks that can be told.
        stop: bool. Whether to stop the run, at the end of the epoch.
        every: int > 0. Epochs between two looks at the features; the first
            and the last epoch are looked at too, and the others log what was
            found last.
        batch_size: int, for the encoder.

    Raises:
        ValueError: if the images have another form, `every` is less than 1,
            or, when a `fit` starts, the images have another size than the
            encoder's.

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
        self.stop = stop
        self.batch_size = batch_size
        self.problems: dict[str, str] = {}
        self.epochs_at_collapse = 0
        self.told: set[str] = set()

    def set_model(self, model: Any) -> None:
        """Refuses images that aren't of the encoder's size, before training."""
        Inputs(model.encoder.input_shape[1:]).read(self.images)
        super().set_model(model)

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Starts to count anew."""
        super().on_train_begin(logs)
        self.epochs_at_collapse = 0
        self.told = set()

    def look(self, epoch: int, logs: dict) -> dict[str, float]:
        """Measures the features, and notes what is wrong with them."""
        features = self.model.embed(self.images, batch_size=self.batch_size)
        self.problems = feature_problems(features)
        return {
            "effective_rank": effective_rank(features),
            "feature_spread": feature_spread(features),
        }

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Adds the numbers to the logs, and warns."""
        if logs is None:
            return
        self.problems = {}
        problem = loss_problem(self.model, logs["loss"])
        super().on_epoch_end(epoch, logs)
        problems = dict(self.problems)
        self.epochs_at_collapse = self.epochs_at_collapse + 1 if problem else 0
        # The loss of random weights may lie there, too.
        if problem and self.epochs_at_collapse > 1:
            problems["loss"] = problem
        for kind, words in problems.items():
            if kind not in self.told:
                self.told.add(kind)
                advice = self.model.collapse_advice
                warnings.warn(f"Epoch {epoch + 1}: {words} {advice}")
        if problems and self.stop:
            self.model.stop_training = True
