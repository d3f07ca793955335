"""NNCLR: the positive is the nearest neighbor in a queue."""

import math
from typing import Any

import keras
from keras import ops

from kerassl import augmentation
from kerassl.distributed import gather, local_indices
from kerassl.layers import FeatureQueue
from kerassl.losses import info_nce, unit_vectors
from kerassl.methods.base import SelfSupervisedModel


@keras.saving.register_keras_serializable(package="kerassl")
class NNCLR(SelfSupervisedModel):
    """Nearest-neighbor contrastive learning.

    A queue holds projections of earlier images. The nearest neighbor of a
    view's projection in it, often another image of the same content, has to
    identify the prediction from the other view among the predictions of the
    batch (`kerassl.losses.info_nce`). The loss is the mean of both directions.
    The first view's projections enter the queue after the neighbors are found.

    Args:
        encoder: `keras.Model` from images to features `(N, D)`, or a KerasHub
            or KerasCV backbone.
        temperature: float > 0.
        hidden_dim: int. The width of the projector's two hidden layers.
        projection_dim: int. The width of projections and predictions.
        predictor_dim: int. The width of the predictor's hidden layer.
        queue_size: int. The number of projections to search, at least the
            (global) batch. If it is as large as the data set, the nearest
            neighbor is often an old projection of the image itself.
        augmenter: a `ViewAugmenter` of two views. By default
            `kerassl.augmentation.byol` at the encoder's image size.
        seed: int or `None`, for the queue's random start.
        **kwargs: the arguments of `keras.Model`.

    Raises:
        ValueError: if an argument is out of its range, or the augmenter makes
            other than two views.

    Metrics: `contrastive_accuracy`, the share of neighbors that identify their
    prediction; `neighbor_similarity`, the mean cosine of the first view's
    projections and their neighbors.

    Example:
    ```python
    encoder = kerassl.encoders.build("resnet_18_small", (32, 32, 3))
    model = kerassl.NNCLR(encoder, queue_size=8192)
    model.compile(keras.optimizers.SGD(0.06, momentum=0.9))
    model.fit(images, batch_size=256, epochs=200)
    ```

    Deviations: the authors have no public code; heads and loss are as in
    solo-learn. Any batch up to the queue's size fits, while solo-learn needs a
    divisor.

    Reference:
        - [Dwibedi et al., 2021](https://arxiv.org/abs/2104.14548)
    """

    metric_names = ("contrastive_accuracy", "neighbor_similarity")
    num_views = 2
    collapse_advice = (
        "Try a lower learning rate or a longer warmup, and a larger batch or "
        "queue: NNCLR starts slowly, while the queue holds random vectors."
    )
    default_views = staticmethod(augmentation.byol)

    def __init__(
        self,
        encoder: Any,
        temperature: float = 0.1,
        hidden_dim: int = 2048,
        projection_dim: int = 256,
        predictor_dim: int = 4096,
        queue_size: int = 65536,
        augmenter: keras.layers.Layer | None = None,
        seed: int | None = None,
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
        self.predictor_dim = predictor_dim
        self.queue_size = queue_size
        self.seed = seed
        self.projector = self.head(
            "projector",
            self.encoder.output_shape[-1],
            (hidden_dim, hidden_dim, projection_dim),
            output_normalization="batch",
        )
        self.predictor = self.head(
            "predictor",
            projection_dim,
            (predictor_dim, projection_dim),
            output_bias=True,
        )
        self.queue = FeatureQueue(queue_size, projection_dim, seed=seed)

    def forward_views(
        self, views: dict[str, Any], training: bool = False
    ) -> dict[str, Any]:
        """Makes a projection, its neighbor and a prediction of each view."""
        outputs = {}
        queue = self.queue.snapshot()
        for i, name in enumerate(self.augmenter.view_names, start=1):
            projection = self.projector(
                self.encoder_of(name)(views[name], training=training),
                training=training,
            )
            outputs[f"prediction_{i}"] = self.predictor(
                projection, training=training
            )
            projection = ops.stop_gradient(unit_vectors(projection))
            outputs[f"projection_{i}"] = projection
            nearest = ops.argmax(
                ops.matmul(projection, ops.transpose(queue)), axis=-1
            )
            outputs[f"neighbor_{i}"] = ops.take(queue, nearest, axis=0)
        if training:
            self.queue.enqueue(gather(outputs["projection_1"]))
        return outputs

    def objective(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """Compares neighbors with the other view's predictions."""
        first, second = (
            info_nce(
                outputs[neighbor],
                gather(outputs[prediction]),
                self.temperature,
                rows=local_indices(outputs[neighbor]),
            )
            for neighbor, prediction in (
                ("neighbor_1", "prediction_2"),
                ("neighbor_2", "prediction_1"),
            )
        )
        scalars = {
            name: (first[name] + second[name]) / 2.0
            for name in ("loss", "contrastive_accuracy")
        }
        similarity = ops.sum(
            outputs["projection_1"] * outputs["neighbor_1"], axis=-1
        )
        return {**scalars, "neighbor_similarity": ops.mean(similarity)}

    def collapsed_loss(self, batch_size: int | None) -> float | None:
        """Returns ln(N): a guess among the predictions of N images."""
        return batch_size and math.log(batch_size)
