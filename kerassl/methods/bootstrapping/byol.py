"""BYOL: predict a momentum network's projection of the other view."""

from typing import Any

import keras
from keras import ops

from kerassl import augmentation
from kerassl.distributed import gather
from kerassl.layers import MomentumNetwork, update_together
from kerassl.losses import negative_cosine, output_std
from kerassl.methods.base import SelfSupervisedModel


@keras.saving.register_keras_serializable(package="kerassl")
class BYOL(SelfSupervisedModel):
    """Bootstrap your own latent.

    The online network (encoder, projector, predictor) sees one view and
    predicts the target network's projection of the other view. The target is a
    momentum copy of encoder and projector. Images are never compared with each
    other. The loss is the squared distance of the normalized vectors, summed
    over both directions.

    Args:
        encoder: `keras.Model` from images to features `(N, D)`, or a KerasHub
            or KerasCV backbone.
        hidden_dim: int. The width of the heads' hidden layer.
        projection_dim: int. The width of projections and predictions.
        momentum: float in [0, 1], of the target network, or a callable that
            returns it for a step. The paper raises it to 1 during training:
            `kerassl.layers.CosineMomentum(0.996, total_steps)`.
        copy_weights: bool. With `False` the target starts from its own random
            weights, as in the authors' code; with `True` from the online
            network's. Use `True` for a pretrained encoder.
        augmenter: a `ViewAugmenter` of two views. By default
            `kerassl.augmentation.byol` at the encoder's image size.
        **kwargs: the arguments of `keras.Model`.

    Raises:
        ValueError: if the augmenter makes other than two views.

    Metrics: `output_std`, the standard deviation of the normalized projections:
    about `1 / sqrt(projection_dim)` in healthy training, 0 after a collapse.

    Example:
    ```python
    encoder = kerassl.encoders.build("resnet_18_small", (32, 32, 3))
    momentum = kerassl.layers.CosineMomentum(0.99, total_steps=20_000)
    model = kerassl.BYOL(encoder, momentum=momentum)
    model.compile(kerassl.optimizers.LARS(0.45, weight_decay=1e-6))
    model.fit(images, batch_size=256, epochs=100)
    ```

    Reference:
        - [Grill et al., 2020](https://arxiv.org/abs/2006.07733)
        - deepmind-research/byol. Deviations: views follow
          `kerassl.augmentation`; kerassl's ResNets initialize all scales to 1,
          as for the paper's results, while the code sets the last one of each
          block to 0; the code's LARS applies the learning rate outside of the
          momentum.
    """

    metric_names = ("output_std",)
    collapse_advice = "Try a lower learning rate or a momentum closer to 1."
    num_views = 2
    default_views = staticmethod(augmentation.byol)

    def __init__(
        self,
        encoder: Any,
        hidden_dim: int = 4096,
        projection_dim: int = 256,
        momentum: Any = 0.996,
        copy_weights: bool = False,
        augmenter: keras.layers.Layer | None = None,
        **kwargs: Any,
    ):
        super().__init__(encoder, augmenter, **kwargs)
        self.hidden_dim = hidden_dim
        self.projection_dim = projection_dim
        self.momentum = momentum
        self.copy_weights = copy_weights
        width = self.encoder.output_shape[-1]
        units = (hidden_dim, projection_dim)
        self.projector = self.head("projector", width, units, hidden_bias=True)
        self.predictor = self.head(
            "predictor", projection_dim, units, hidden_bias=True
        )
        self.momentum_encoder = self.momentum_copy(momentum, copy_weights)
        self.momentum_projector = MomentumNetwork(
            self.projector, momentum, copy_weights
        )

    def forward_views(
        self, views: dict[str, Any], training: bool = False
    ) -> dict[str, Any]:
        """Computes a prediction and a target for each view."""
        outputs = {}
        for i, name in enumerate(self.augmenter.view_names, start=1):
            features = self.encoder_of(name)(views[name], training=training)
            projection = self.projector(features, training=training)
            outputs[f"projection_{i}"] = projection
            outputs[f"prediction_{i}"] = self.predictor(
                projection, training=training
            )
            outputs[f"target_{i}"] = self.momentum_projector(
                self.momentum_encoder_of(name)(views[name], training=training),
                training=training,
            )
        return outputs

    def objective(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """Sums the squared distances of both directions."""
        first = negative_cosine(outputs["prediction_1"], outputs["target_2"])
        second = negative_cosine(outputs["prediction_2"], outputs["target_1"])
        return {
            "loss": 4.0 + 2.0 * (first["loss"] + second["loss"]),
            "output_std": output_std(gather(outputs["projection_1"])),
        }

    def collapsed_loss(self, batch_size: int | None) -> float | None:
        """Returns 0: every prediction matches every target."""
        return 0.0

    def after_update(self) -> None:
        """Moves the target toward the new online weights."""
        # The authors' schedule uses the step before the increment.
        step = ops.convert_to_tensor(self.optimizer.iterations) - 1
        update_together(
            [
                (self.momentum_encoder, self.encoder),
                (self.momentum_projector, self.projector),
            ],
            step,
        )
