"""VICReg: invariance, variance and covariance regularization."""

from typing import Any

import keras

from kerassl import augmentation
from kerassl.distributed import gather
from kerassl.losses import vicreg
from kerassl.methods.base import SelfSupervisedModel


@keras.saving.register_keras_serializable(package="kerassl")
class VICReg(SelfSupervisedModel):
    """Variance, invariance, covariance regularization.

    The loss has three terms on the projections of two views
    (`kerassl.losses.vicreg`): the distance between the views; a hinge that
    keeps each dimension's standard deviation over the batch at 1 or above; and
    the covariances between dimensions.

    Args:
        encoder: `keras.Model` from images to features `(N, D)`, or a KerasHub
            or KerasCV backbone.
        projection_dim: int. The width of the three dense layers.
        invariance_weight: float >= 0.
        variance_weight: float >= 0.
        covariance_weight: float >= 0.
        augmenter: a `ViewAugmenter` of two views. By default
            `kerassl.augmentation.byol` at the encoder's image size.
        **kwargs: the arguments of `keras.Model`.

    Raises:
        ValueError: if the augmenter makes other than two views.

    Metrics: `invariance`, `variance` and `covariance`, the unweighted terms.

    Example:
    ```python
    encoder = kerassl.encoders.build("resnet_50", (224, 224, 3))
    model = kerassl.VICReg(encoder)
    model.compile(kerassl.optimizers.LARS(0.2, weight_decay=1e-6))
    model.fit(images, batch_size=256, epochs=100)
    ```

    Reference:
        - [Bardes et al., 2021](https://arxiv.org/abs/2105.04906)
        - facebookresearch/vicreg. Deviations: views follow
          `kerassl.augmentation`; kerassl's ResNets initialize all scales to 1,
          the code's set the last one of each block to 0; the code's LARS
          applies the learning rate outside of the momentum.
    """

    metric_names = ("invariance", "variance", "covariance")
    num_views = 2
    default_views = staticmethod(augmentation.byol)

    def __init__(
        self,
        encoder: Any,
        projection_dim: int = 8192,
        invariance_weight: float = 25.0,
        variance_weight: float = 25.0,
        covariance_weight: float = 1.0,
        augmenter: keras.layers.Layer | None = None,
        **kwargs: Any,
    ):
        super().__init__(encoder, augmenter, **kwargs)
        self.projection_dim = projection_dim
        self.invariance_weight = invariance_weight
        self.variance_weight = variance_weight
        self.covariance_weight = covariance_weight
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
        """Adds up the three terms over the global batch."""
        return vicreg(
            gather(outputs["projection_1"]),
            gather(outputs["projection_2"]),
            self.invariance_weight,
            self.variance_weight,
            self.covariance_weight,
        )

    def collapsed_loss(self, batch_size: int | None) -> float | None:
        """Returns the variance term of constant projections.

        The loss adds 1e-4 to each variance, so the standard deviation is 0.01.
        """
        return 0.99 * self.variance_weight
