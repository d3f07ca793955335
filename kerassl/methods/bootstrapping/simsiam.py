"""SimSiam: BYOL without the momentum network, only a stopped gradient."""

from typing import Any

import keras
from keras import ops

from kerassl import augmentation
from kerassl.distributed import gather
from kerassl.losses import negative_cosine, output_std
from kerassl.methods.base import SelfSupervisedModel


@keras.saving.register_keras_serializable(package="kerassl")
class SimSiam(SelfSupervisedModel):
    """Simple Siamese networks, of two views or, as FastSiam, more.

    One network sees all views. A predictor predicts the mean of the other
    views' projections from each view's own; no gradient flows through the
    targets. The loss is the mean negative cosine similarity over the views.
    With four views the targets are less noisy: FastSiam learns more in few
    epochs and with small batches.

    The paper keeps the predictor's learning rate constant while the others
    decay: see `kerassl.optimizers.with_learning_rates`.

    Args:
        encoder: `keras.Model` from images to features `(N, D)`, or a KerasHub
            or KerasCV backbone.
        projection_dim: int. The width of projections and predictions.
        hidden_dim: int, or None. The width of the projector's hidden layers.
            By default the width of the features, as in the authors' code.
        projector_layers: int > 0. The paper uses 3, and 2 for CIFAR-10.
        predictor_dim: int. The width of the predictor's bottleneck.
        stop_gradient: bool. With `False` gradients also flow through the
            targets, and the outputs collapse, as the paper shows.
        augmenter: a `ViewAugmenter` of at least two views. By default
            `kerassl.augmentation.moco_v2` at the encoder's image size, with
            two views.
        **kwargs: the arguments of `keras.Model`.

    Raises:
        ValueError: if `projector_layers` is less than 1, or the augmenter
            makes fewer than two views.

    Metrics: `output_std`, the standard deviation of the first view's normalized
    projections: about `1 / sqrt(projection_dim)` in healthy training, 0 after a
    collapse.

    Example:
    ```python
    encoder = kerassl.encoders.build("resnet_18_small", (32, 32, 3))
    model = kerassl.SimSiam(encoder)
    rate = kerassl.optimizers.warmup_cosine(0.03, total_steps=80_000)
    optimizer = kerassl.optimizers.with_learning_rates(
        keras.optimizers.SGD(rate, momentum=0.9), {"predictor": 0.03}
    )
    model.compile(optimizer)
    model.fit(images, batch_size=512, epochs=800)
    ```

    FastSiam is the same with more views:

    ```python
    views = kerassl.augmentation.moco_v2(32, num_views=4)
    model = kerassl.SimSiam(encoder, augmenter=views)
    ```

    Reference:
        - [Chen and He, 2020](https://arxiv.org/abs/2011.10566)
        - [Pototzky et al., 2022, FastSiam](https://doi.org/10.1007/978-3-031-16788-1_4)
        - facebookresearch/simsiam. Deviations: views follow
          `kerassl.augmentation`; kerassl's ResNets initialize all scales to 1,
          the code's set the last one of each block to 0; the frozen bias before
          the projector's last batch normalization, which cancels it, is left
          out.
    """

    metric_names = ("output_std",)
    collapse_advice = (
        "Try a lower learning rate, and keep the predictor's constant. Without "
        "the stopped gradient the features always collapse."
    )
    default_views = staticmethod(augmentation.moco_v2)

    def __init__(
        self,
        encoder: Any,
        projection_dim: int = 2048,
        hidden_dim: int | None = None,
        projector_layers: int = 3,
        predictor_dim: int = 512,
        stop_gradient: bool = True,
        augmenter: keras.layers.Layer | None = None,
        **kwargs: Any,
    ):
        if projector_layers < 1:
            raise ValueError(
                "`projector_layers` must be at least 1. Received: "
                f"{projector_layers}"
            )
        super().__init__(encoder, augmenter, **kwargs)
        names = self.augmenter.view_names
        if len(names) < 2:
            raise ValueError(
                "SimSiam needs at least 2 views. The augmenter makes "
                f"{len(names)}: {names}."
            )
        self.projection_dim = projection_dim
        self.hidden_dim = hidden_dim
        self.projector_layers = projector_layers
        self.predictor_dim = predictor_dim
        self.stop_gradient = stop_gradient
        width = self.encoder.output_shape[-1]
        self.projector = self.head(
            "projector",
            width,
            (width if hidden_dim is None else hidden_dim,)
            * (projector_layers - 1)
            + (projection_dim,),
            output_normalization="batch_no_affine",
        )
        self.predictor = self.head(
            "predictor",
            projection_dim,
            (predictor_dim, projection_dim),
            output_bias=True,
        )

    def forward_views(
        self, views: dict[str, Any], training: bool = False
    ) -> dict[str, Any]:
        """Computes a projection and a prediction for each view."""
        outputs = {}
        for i, name in enumerate(self.augmenter.view_names, start=1):
            features = self.encoder_of(name)(views[name], training=training)
            projection = self.projector(features, training=training)
            outputs[f"projection_{i}"] = projection
            outputs[f"prediction_{i}"] = self.predictor(
                projection, training=training
            )
        return outputs

    def objective(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """Compares each prediction with the mean of the other projections."""
        views = range(1, len(self.augmenter.view_names) + 1)
        targets = {
            i: ops.cast(outputs[f"projection_{i}"], "float32") for i in views
        }
        if self.stop_gradient:
            targets = {i: ops.stop_gradient(z) for i, z in targets.items()}
        # Their sum points where their mean does.
        losses = [
            negative_cosine(
                outputs[f"prediction_{i}"],
                sum(target for j, target in targets.items() if j != i),
            )["loss"]
            for i in views
        ]
        return {
            "loss": sum(losses) / len(losses),
            "output_std": output_std(gather(outputs["projection_1"])),
        }

    def collapsed_loss(self, batch_size: int | None) -> float | None:
        """Returns -1: every prediction matches every target."""
        return -1.0
