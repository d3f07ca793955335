"""EMP-SSL: many small patches of an image agree."""

import math
from typing import Any

import keras
from keras import ops

from kerassl import augmentation
from kerassl.distributed import gather
from kerassl.losses import emp_ssl
from kerassl.methods.base import SelfSupervisedModel


def many_patches(size: int) -> augmentation.ViewAugmenter:
    """Returns 20 patches, each of a quarter of the image's area.

    SimCLR's, with the jitter of the authors' code, and above 32 pixels its
    blur. The code changes hues twice as much, and solarizes a tenth.
    """
    return augmentation.simclr(
        size,
        strength=0.5,
        blur=0.0 if size <= 32 else 0.1,
        crop_area=(0.25, 0.25),
        num_views=20,
    )


@keras.saving.register_keras_serializable(package="kerassl")
class EMPSSL(SelfSupervisedModel):
    """Extreme multi-patch self-supervised learning.

    Each image gives many patches, a quarter of its area each. Their normalized
    projections are drawn to their mean. Over the batch, each patch's
    projections have to spread over as many dimensions as possible, by their
    total coding rate (`kerassl.losses.emp_ssl`). One epoch costs as many passes
    as there are patches, and few epochs are needed.

    Args:
        encoder: `keras.Model` from images to features `(N, D)`, or a KerasHub
            or KerasCV backbone.
        projection_dim: int. The width of the projections.
        hidden_dim: int. The width of the projector's two hidden layers.
        invariance_weight: float >= 0, against 1 for the coding rate.
        epsilon: float > 0, the squared error of the coding rate.
        augmenter: a `ViewAugmenter` of at least two views. By default 20 of
            `kerassl.augmentation.simclr` at the encoder's image size, with
            crops of a quarter of the area, half of its jitter, and a blur of
            one in ten above 32 pixels.
        **kwargs: the arguments of `keras.Model`.

    Raises:
        ValueError: if an argument is out of its range, or there are fewer than
            two views.

    Metrics: `similarity`, the mean cosine of patches and their image's mean;
    `coding_rate`, in nats.

    Example:
    ```python
    encoder = kerassl.encoders.build("resnet_18_small", (32, 32, 3))
    model = kerassl.EMPSSL(encoder)
    model.compile(kerassl.optimizers.LARS(0.3, weight_decay=1e-4))
    model.fit(images, batch_size=100, epochs=10)
    ```

    Deviations: written from the paper's formulas. Patches are SimCLR's, with
    ratios of 3/4 to 4/3 instead of 1, and half the hue (0.1). The code blurs
    and solarizes a tenth of the patches each; here none are solarized, and they
    are blurred only above 32 pixels. The encoder's output is evaluated, on
    whole images; the paper evaluates the projector's first layer, averaged over
    many patches. On several devices the coding rate is that of all samples.

    Reference:
        - [Tong et al., 2023](https://arxiv.org/abs/2304.03977)
    """

    metric_names = ("similarity", "coding_rate")
    collapse_advice = (
        "Try a smaller `invariance_weight`, a lower learning rate, or a larger "
        "batch."
    )
    default_views = staticmethod(many_patches)

    def __init__(
        self,
        encoder: Any,
        projection_dim: int = 1024,
        hidden_dim: int = 4096,
        invariance_weight: float = 200.0,
        epsilon: float = 0.2,
        augmenter: keras.layers.Layer | None = None,
        **kwargs: Any,
    ):
        if epsilon <= 0:
            raise ValueError(f"`epsilon` must be above 0. Received: {epsilon}")
        super().__init__(encoder, augmenter, **kwargs)
        names = self.augmenter.view_names
        if len(names) < 2:
            raise ValueError(
                f"EMPSSL needs at least 2 views. The augmenter makes "
                f"{len(names)}: {names}."
            )
        self.projection_dim = projection_dim
        self.hidden_dim = hidden_dim
        self.invariance_weight = invariance_weight
        self.epsilon = epsilon
        self.projector = self.head(
            "projector",
            self.encoder.output_shape[-1],
            (hidden_dim, hidden_dim, projection_dim),
            output_bias=True,
        )

    def forward_views(
        self, views: dict[str, Any], training: bool = False
    ) -> dict[str, Any]:
        """Projects all patches: one encoder pass per size, one head pass."""
        projections = self.encode_views(
            views, head=self.projector, training=training
        )
        return {"projections": ops.stack(list(projections.values()), axis=1)}

    def objective(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """Compares patches, and takes the global batch's coding rate."""
        return emp_ssl(
            outputs["projections"],
            self.invariance_weight,
            self.epsilon,
            gather(outputs["projections"]),
        )

    def collapsed_loss(self, batch_size: int | None) -> float | None:
        """Returns the loss of projections that all point one way."""
        rate = math.log(1.0 + self.projection_dim / self.epsilon) / 2.0
        return -self.invariance_weight - rate
