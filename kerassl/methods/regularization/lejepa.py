"""LeJEPA: views agree, and their projections are Gaussian."""

from typing import Any

import keras
import numpy as np
from keras import ops

from kerassl import augmentation
from kerassl.distributed import gather
from kerassl.losses import lejepa, unit_vectors
from kerassl.losses.lejepa import NORMAL, WEIGHTS
from kerassl.methods.base import SelfSupervisedModel


def four_views(size: int) -> augmentation.ViewAugmenter:
    """Returns four of SimCLR's views."""
    return augmentation.simclr(size, num_views=4)


@keras.saving.register_keras_serializable(package="kerassl")
class LeJEPA(SelfSupervisedModel):
    """A joint-embedding predictive architecture without heuristics.

    The projections of any number of views of an image are drawn to their mean.
    A test of normality along random directions, new in each step, keeps them
    from collapsing: over the batch, each view's projections have to look like
    samples of a standard normal distribution (`kerassl.losses.sigreg`). There
    is no second network, no predictor and no stopped gradient.

    Args:
        encoder: `keras.Model` from images to features `(N, D)`, or a KerasHub
            or KerasCV backbone.
        projection_dim: int. The width of the projections, 16 to 512.
        hidden_dim: int. The width of the projector's two hidden layers.
        num_directions: int > 0. The number of random directions in a step.
        regularization_weight: float in (0, 1), lambda: the share of the
            normality test in the loss. The paper tries 0.01 to 0.1.
        augmenter: a `ViewAugmenter` of at least two views. Views of the first
            one's size are the large ones: all views, small ones too, are drawn
            to the mean of the large ones. By default four of
            `kerassl.augmentation.simclr` at the encoder's image size.
        seed: int or `None`, for the directions.
        **kwargs: the arguments of `keras.Model`.

    Raises:
        ValueError: if an argument is out of its range, there are fewer than two
            views, or the encoder can't take the small ones.

    Metrics: `invariance` and `sigreg`, the unweighted terms.

    Example:
    ```python
    encoder = kerassl.encoders.build("resnet_18_small", (32, 32, 3))
    model = kerassl.LeJEPA(encoder, projection_dim=64)
    model.compile(kerassl.optimizers.AdamW(2e-3, weight_decay=5e-4))
    model.fit(images, batch_size=256, epochs=200)
    ```

    Deviations: written from the paper's formulas. All views pass the projector
    as one batch, with common batch statistics. On several devices the test
    takes the samples of all of them.

    Reference:
        - [Balestriero and LeCun, 2025](https://arxiv.org/abs/2511.08544)
    """

    metric_names: tuple[str, ...] = ("invariance", "sigreg")
    collapse_advice = (
        "Try a larger `regularization_weight` (0.1), a larger batch, or a "
        "lower learning rate."
    )
    default_views = staticmethod(four_views)

    def __init__(
        self,
        encoder: Any,
        projection_dim: int = 64,
        hidden_dim: int = 2048,
        num_directions: int = 1024,
        regularization_weight: float = 0.05,
        augmenter: keras.layers.Layer | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ):
        if num_directions < 1:
            raise ValueError(
                "`num_directions` must be at least 1. Received: "
                f"{num_directions}"
            )
        if not 0 < regularization_weight < 1:
            raise ValueError(
                "`regularization_weight` must be in (0, 1). Received: "
                f"{regularization_weight}"
            )
        super().__init__(encoder, augmenter, **kwargs)
        names = self.augmenter.view_names
        if len(names) < 2:
            raise ValueError(
                f"{type(self).__name__} needs at least 2 views. The augmenter "
                f"makes {len(names)}: {names}."
            )
        self.projection_dim = projection_dim
        self.hidden_dim = hidden_dim
        self.num_directions = num_directions
        self.regularization_weight = regularization_weight
        self.seed = seed
        is_small = {
            n: self._size_of(n) != self._size_of(names[0]) for n in names
        }
        #: The names of the views, large ones first.
        self.ordered_views = sorted(names, key=is_small.__getitem__)
        self.num_large_views = len(names) - sum(is_small.values())
        self.projector = self.head(
            "projector",
            self.encoder.output_shape[-1],
            (hidden_dim, hidden_dim, projection_dim),
            output_bias=True,
        )
        # Keras's own, whose numbers are the same on all devices.
        self.seed_generator = keras.random.SeedGenerator(seed)

    def draw_directions(self) -> Any:
        """Returns random unit vectors `(num_directions, projection_dim)`."""
        return unit_vectors(
            keras.random.normal(
                (self.num_directions, self.projection_dim),
                dtype="float32",
                seed=self.seed_generator,
            )
        )

    def make_views(self, inputs: Any) -> dict[str, Any]:
        """Adds new directions to the views of a batch.

        PyTorch's compiler can't trace `keras.random`, and so not a draw in
        `forward_views`. Nor is it one of `draw`'s: those are by image.
        """
        directions = self.draw_directions()
        return {**super().make_views(inputs), "directions": directions}

    def forward_views(
        self, views: dict[str, Any], training: bool = False
    ) -> dict[str, Any]:
        """Projects all views: one encoder pass per size, one head pass."""
        projections = self.encode_views(
            views, head=self.projector, training=training
        )
        return {
            "projections": ops.stack(
                [projections[name] for name in self.ordered_views], axis=1
            ),
            "directions": views["directions"],
        }

    def objective(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """Tests the projections of the global batch for normality."""
        return lejepa(
            outputs["projections"],
            outputs["directions"],
            self.num_large_views,
            self.regularization_weight,
            gather(outputs["projections"]),
        )

    def collapsed_loss(self, batch_size: int | None) -> float | None:
        """Returns the test's value for projections that are all 0."""
        if batch_size is None:
            return None
        value = batch_size * np.sum(WEIGHTS * (1.0 - NORMAL) ** 2)
        return float(self.regularization_weight * value)
