"""MoCo v3: keys from a momentum encoder, and negatives from the batch."""

import functools
import math
from typing import Any

import keras

from kerassl import augmentation
from kerassl.distributed import gather, local_indices
from kerassl.layers import MomentumNetwork, update_together
from kerassl.losses import info_nce
from kerassl.methods.base import SelfSupervisedModel


@keras.saving.register_keras_serializable(package="kerassl")
class MoCoV3(SelfSupervisedModel):
    """Momentum contrast, version 3: symmetric, with a predictor and no queue.

    Both views become queries, through encoder, projector and predictor, and
    keys, through momentum copies of encoder and projector. Each query has to
    identify its key among the keys of the batch (`kerassl.losses.info_nce`).
    The loss is the sum of both directions, times twice the temperature.

    Args:
        encoder: `keras.Model` from images to features `(N, D)`, or a KerasHub
            or KerasCV backbone.
        temperature: float > 0. The paper uses 1.0 for ResNet-50, 0.2 for ViTs.
        hidden_dim: int. The width of the heads' hidden layers.
        projection_dim: int. The width of projections and predictions.
        vit_heads: bool. Whether to use the paper's heads for ViTs: a third
            layer in the projector, batch normalization after the predictor.
        momentum: float in [0, 1], of the momentum networks, or a callable that
            returns it for a step, such as `kerassl.layers.CosineMomentum`.
        augmenter: a `ViewAugmenter` of two views. By default
            `kerassl.augmentation.byol` with crops of at least 20 % of the area.
        **kwargs: the arguments of `keras.Model`.

    Raises:
        ValueError: if an argument is out of its range, or the augmenter makes
            other than two views.

    Metrics: `contrastive_accuracy`, the share of queries that identify their
    key.

    Example:
    ```python
    encoder = kerassl.encoders.build("resnet_50", (224, 224, 3))
    momentum = kerassl.layers.CosineMomentum(0.99, total_steps)
    model = kerassl.MoCoV3(encoder, momentum=momentum)
    model.compile(kerassl.optimizers.LARS(9.6, weight_decay=1e-6))
    model.fit(images, batch_size=4096, epochs=100)
    ```

    Deviations from facebookresearch/moco-v3: the ViT's patch embedding is
    trained; freeze that layer for the paper's random patch projection. Views
    are resized with BYOL's bicubic filter, the code's with a bilinear one.
    kerassl's ResNets initialize all scales to 1, the code's set the last one of
    each block to 0; the code's LARS applies the learning rate outside of the
    momentum.

    Reference:
        - [Chen et al., 2021](https://arxiv.org/abs/2104.02057)
    """

    metric_names = ("contrastive_accuracy",)
    num_views = 2
    default_views = staticmethod(
        functools.partial(augmentation.byol, crop_area=(0.2, 1.0))
    )

    def __init__(
        self,
        encoder: Any,
        temperature: float = 1.0,
        hidden_dim: int = 4096,
        projection_dim: int = 256,
        vit_heads: bool = False,
        momentum: Any = 0.99,
        augmenter: keras.layers.Layer | None = None,
        **kwargs: Any,
    ):
        if temperature <= 0:
            raise ValueError(
                f"`temperature` must be above 0. Received: {temperature}"
            )
        super().__init__(encoder, augmenter, **kwargs)
        self.temperature = temperature
        self.hidden_dim = hidden_dim
        self.projection_dim = projection_dim
        self.vit_heads = vit_heads
        self.momentum = momentum
        self.projector = self.head(
            "projector",
            self.encoder.output_shape[-1],
            (hidden_dim,) * (2 if vit_heads else 1) + (projection_dim,),
            output_normalization="batch_no_affine",
        )
        self.predictor = self.head(
            "predictor",
            projection_dim,
            (hidden_dim, projection_dim),
            output_normalization="batch_no_affine" if vit_heads else None,
        )
        self.momentum_encoder = self.momentum_copy(momentum)
        self.momentum_projector = MomentumNetwork(self.projector, momentum)

    def forward_views(
        self, views: dict[str, Any], training: bool = False
    ) -> dict[str, Any]:
        """Makes a query and a key of each view, in separate passes."""
        outputs = {}
        for i, name in enumerate(self.augmenter.view_names, start=1):
            features = self.encoder_of(name)(views[name], training=training)
            projection = self.projector(features, training=training)
            outputs[f"query_{i}"] = self.predictor(
                projection, training=training
            )
            outputs[f"key_{i}"] = self.momentum_projector(
                self.momentum_encoder_of(name)(views[name], training=training),
                training=training,
            )
        return outputs

    def objective(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """Compares each query with the other view's keys of all devices."""
        first, second = (
            info_nce(
                outputs[query],
                gather(outputs[key]),
                self.temperature,
                rows=local_indices(outputs[query]),
            )
            for query, key in (("query_1", "key_2"), ("query_2", "key_1"))
        )
        return {
            "loss": 2.0 * self.temperature * (first["loss"] + second["loss"]),
            "contrastive_accuracy": (
                first["contrastive_accuracy"] + second["contrastive_accuracy"]
            )
            / 2.0,
        }

    def collapsed_loss(self, batch_size: int | None) -> float | None:
        """Returns 4T ln(N): both directions pick one of N keys at random."""
        return batch_size and 4 * self.temperature * math.log(batch_size)

    def after_update(self) -> None:
        """Updates the momentum networks."""
        update_together(
            [
                (self.momentum_encoder, self.encoder),
                (self.momentum_projector, self.projector),
            ],
            self.optimizer.iterations,
        )
