"""Barlow Twins: the views' outputs correlate, their dimensions don't."""

from typing import Any

import keras
import numpy as np
from keras import ops

from kerassl import augmentation
from kerassl.distributed import gather, predict_on_one_device
from kerassl.losses import barlow_twins, cross_correlation
from kerassl.methods.base import SelfSupervisedModel


@keras.saving.register_keras_serializable(package="kerassl")
class BarlowTwins(SelfSupervisedModel):
    """Barlow Twins: redundancy reduction.

    The cross-correlation matrix of the two views' projections, computed over
    the batch, should be the identity: each dimension agrees between the views,
    and different dimensions carry different information
    (`kerassl.losses.barlow_twins`).

    Args:
        encoder: `keras.Model` from images to features `(N, D)`, or a KerasHub
            or KerasCV backbone.
        projection_dim: int. The width of the three dense layers.
        off_diagonal_weight: float >= 0, the paper's lambda.
        augmenter: a `ViewAugmenter` of two views. By default
            `kerassl.augmentation.byol` at the encoder's image size.
        **kwargs: the arguments of `keras.Model`.

    Raises:
        ValueError: if the augmenter makes other than two views.

    Metrics: `on_diagonal`, the mean correlation of the same dimension, in
    [-1, 1], and `off_diagonal`, the root mean square of the others.

    Example:
    ```python
    encoder = kerassl.encoders.build("resnet_50", (224, 224, 3))
    model = kerassl.BarlowTwins(encoder)
    # The authors' rates, 0.2 and 0.0048 at a batch of 256.
    optimizer = kerassl.optimizers.LARS(
        0.2, weight_decay=1e-6, bias_rate_scale=0.024
    )
    model.compile(optimizer)
    model.fit(images, batch_size=256, epochs=300)
    matrix = model.cross_correlation(images[:1024])
    ```

    Deviations from facebookresearch/barlowtwins: `evaluate` normalizes with the
    batch's statistics, like training; the code's batch normalization would use
    moving ones. kerassl's ResNets initialize all scales to 1, the code's set
    the last one of each block to 0; the code's LARS applies the learning rate
    outside of the momentum.

    As in that code, biases need a smaller learning rate. For a narrower
    projector the authors advise `bias_rate_scale = 196 / projection_dim`.

    Reference:
        - [Zbontar et al., 2021](https://arxiv.org/abs/2103.03230)
    """

    metric_names = ("on_diagonal", "off_diagonal")
    num_views = 2
    default_views = staticmethod(augmentation.byol)

    def __init__(
        self,
        encoder: Any,
        projection_dim: int = 8192,
        off_diagonal_weight: float = 0.0051,
        augmenter: keras.layers.Layer | None = None,
        **kwargs: Any,
    ):
        super().__init__(encoder, augmenter, **kwargs)
        self.projection_dim = projection_dim
        self.off_diagonal_weight = off_diagonal_weight
        self.projector = self.head(
            "projector", self.encoder.output_shape[-1], (projection_dim,) * 3
        )

    def forward_views(
        self, views: dict[str, Any], training: bool = False
    ) -> dict[str, Any]:
        """Projects both views, in separate passes."""
        return {
            f"projection_{i}": self.projector(
                self.encoder_of(name)(views[name], training=training),
                training=training,
            )
            for i, name in enumerate(self.augmenter.view_names, start=1)
        }

    def objective(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """Correlates the projections over the global batch."""
        return barlow_twins(
            gather(outputs["projection_1"]),
            gather(outputs["projection_2"]),
            self.off_diagonal_weight,
        )

    def collapsed_loss(self, batch_size: int | None) -> float | None:
        """Returns D: all entries of the matrix are 0."""
        return float(self.projection_dim)

    def cross_correlation(self, images: Any) -> np.ndarray:
        """Returns the matrix that training brings close to the identity.

        Args:
            images: array `(N, H, W, C)` in [0, 255], or a dict of ready-made
                views. All are correlated together; use at least a few hundred.

        Returns:
            A float32 NumPy array `(projection_dim, projection_dim)`, values in
            [-1, 1].
        """
        found = predict_on_one_device(self, images)
        one, two = (
            ops.convert_to_tensor(found[f"projection_{i}"]) for i in (1, 2)
        )
        return ops.convert_to_numpy(cross_correlation(one, two))
