"""SwAV: predict one view's prototype assignment from the other views."""

import math
from typing import Any

import keras
from keras import ops

from kerassl import augmentation
from kerassl.distributed import gather
from kerassl.layers import FeatureQueue, Prototypes
from kerassl.losses import sinkhorn, swapped_prediction, unit_vectors
from kerassl.methods.base import SelfSupervisedModel

# The number of views that are assigned to prototypes; others only predict.
ASSIGNED = 2


@keras.saving.register_keras_serializable(package="kerassl")
class SwAV(SelfSupervisedModel):
    """Swapping assignments between views.

    Each projection is compared with prototypes, trained unit vectors. For the
    first two views, Sinkhorn-Knopp computes assignments that use all prototypes
    equally (`kerassl.losses.sinkhorn`); every other view has to predict them.
    Further views may be small crops (multi-crop): the encoder runs once per
    view size.

    Args:
        encoder: `keras.Model` from images to features `(N, D)`, or a KerasHub
            or KerasCV backbone. Small crops need a Functional model that
            isn't tied to one image size, such as a ResNet or one of KerasHub's
            ViTs. The sizes of a ViT's crops must be multiples of its patches.
        num_prototypes: int. The number of prototypes, K; about ten times the
            expected number of classes.
        hidden_dim: int. The width of the projector's hidden layer.
        projection_dim: int. The width of projections and prototypes.
        temperature: float > 0.
        epsilon: float > 0, of Sinkhorn-Knopp. Try 0.03 if the loss stays at
            ln(K), and a larger value if training is unstable.
        sinkhorn_iterations: int > 0.
        freeze_prototypes_steps: int >= 0. The number of initial steps in which
            the prototypes get no gradient. Set it to one epoch of your images,
            as in the paper; the default is one of ImageNet in batches of 4,096.
        queue_size: int >= 0. The number of projections of earlier batches that
            join the assignment, for batches much smaller than K; 0 for none.
        queue_start_step: int >= 0. The step at which the queue starts to fill.
            It is used once it is full.
        augmenter: a `ViewAugmenter` of at least two views; the first two are
            assigned. By default `kerassl.augmentation.swav` at the encoder's
            image size.
        **kwargs: the arguments of `keras.Model`.

    Raises:
        ValueError: if an argument is out of its range, the augmenter makes
            fewer than two views, the first two differ in size, or the encoder
            can't take the small ones.

    Metrics: `prototype_usage`, in (0, 1]: the perplexity of the mean prediction
    divided by K. Near `1 / K` all images are assigned to one prototype.

    Example:
    ```python
    encoder = kerassl.encoders.build("resnet_18_small", (32, 32, 3))
    model = kerassl.SwAV(encoder, num_prototypes=100)
    model.compile(keras.optimizers.SGD(0.6, momentum=0.9))
    model.fit(images, batch_size=256, epochs=200)
    ```

    Deviations from facebookresearch/swav: Sinkhorn-Knopp runs in float32 and
    subtracts the maximum; prototypes are normalized after each step instead of
    before the next one, which differs only after the last step. While they are
    frozen their gradient is 0, where the code drops it and Adam begins with
    them at the thaw: here its bias correction has gone on, and the next steps
    are longer, up to three times after 200 frozen ones. SGD and LARS aren't
    affected.

    Reference:
        - [Caron et al., 2020](https://arxiv.org/abs/2006.09882)
    """

    metric_names = ("prototype_usage",)
    counts_steps = True
    collapse_advice = (
        "Try a smaller `epsilon` (0.03), a lower learning rate, fewer "
        "prototypes, or a queue if the batch is much smaller than their number."
    )
    default_views = staticmethod(augmentation.swav)

    def __init__(
        self,
        encoder: Any,
        num_prototypes: int = 3000,
        hidden_dim: int = 2048,
        projection_dim: int = 128,
        temperature: float = 0.1,
        epsilon: float = 0.05,
        sinkhorn_iterations: int = 3,
        freeze_prototypes_steps: int = 313,
        queue_size: int = 0,
        queue_start_step: int = 0,
        augmenter: keras.layers.Layer | None = None,
        **kwargs: Any,
    ):
        if temperature <= 0 or epsilon <= 0 or sinkhorn_iterations < 1:
            raise ValueError(
                "`temperature`, `epsilon` and `sinkhorn_iterations` must be "
                f"positive. Received: temperature={temperature}, "
                f"epsilon={epsilon}, sinkhorn_iterations={sinkhorn_iterations}"
            )
        super().__init__(encoder, augmenter, **kwargs)
        self.num_prototypes = num_prototypes
        self.hidden_dim = hidden_dim
        self.projection_dim = projection_dim
        self.temperature = temperature
        self.epsilon = epsilon
        self.sinkhorn_iterations = sinkhorn_iterations
        self.freeze_prototypes_steps = freeze_prototypes_steps
        self.queue_size = queue_size
        self.queue_start_step = queue_start_step
        names = self.augmenter.view_names[:ASSIGNED]
        sizes = [self._size_of(name) for name in names]
        if len(sizes) < ASSIGNED or sizes[0] != sizes[1]:
            raise ValueError(
                "SwAV assigns the first two views, which must have one size. "
                f"The first views of the augmenter are {names}, of the sizes "
                f"{sizes}."
            )
        self.projector = self.head(
            "projector",
            self.encoder.output_shape[-1],
            (hidden_dim, projection_dim),
            output_bias=True,
        )
        # In half precision some images would go to other prototypes.
        dtype = keras.backend.result_type(self.variable_dtype, "float32")
        self.prototypes = Prototypes(num_prototypes, dtype=dtype)
        self.prototypes.build((None, projection_dim))
        self.queues = [
            FeatureQueue(queue_size, projection_dim, start="zeros")
            for _ in range(ASSIGNED if queue_size else 0)
        ]

    def forward_views(
        self, views: dict[str, Any], training: bool = False
    ) -> dict[str, Any]:
        """Projects all views: one encoder pass per size, one head pass."""
        outputs = self.encode_views(
            views, head=self._project, training=training
        )
        steps = ops.convert_to_tensor(self.steps)
        started = ops.cast(steps >= self.queue_start_step, "float32")
        for i, queue in enumerate(self.queues):
            outputs[f"queue_{i}"] = queue.snapshot()
            if training:
                # Before that step it takes zeros, which mark empty slots.
                view = self.augmenter.view_names[i]
                queue.enqueue(started * gather(outputs[view]))
        return outputs

    def _project(self, features: Any, training: bool) -> Any:
        return unit_vectors(self.projector(features, training=training))

    def objective(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """Predicts the assignments of the first views from the others."""
        steps = ops.convert_to_tensor(self.steps)
        frozen = steps < self.freeze_prototypes_steps
        scores = [
            self.prototypes(gather(outputs[name]), frozen=frozen)
            for name in self.augmenter.view_names
        ]
        assignments = [
            self._assignment(scores[i], outputs.get(f"queue_{i}"))
            for i in range(ASSIGNED)
        ]
        return {
            **swapped_prediction(scores, assignments, self.temperature),
            "prototype_usage": self._usage(scores[0]),
        }

    def _assignment(self, scores: Any, queue: Any) -> Any:
        if queue is None:
            return sinkhorn(scores, self.epsilon, self.sinkhorn_iterations)
        count = ops.shape(scores)[0]
        is_full = ops.cast(ops.any(queue[-1] != 0.0), "float32")
        there = ops.ones((count,), "float32")
        queued_there = is_full * ops.ones((self.queue_size,), "float32")
        taking_part = ops.concatenate([there, queued_there])
        return sinkhorn(
            ops.concatenate([scores, self.prototypes(queue)]),
            self.epsilon,
            self.sinkhorn_iterations,
            taking_part,
        )[:count]

    def _usage(self, scores: Any) -> Any:
        logits = scores / self.temperature
        mean = ops.mean(ops.softmax(ops.stop_gradient(logits)), axis=0)
        entropy = -ops.sum(mean * ops.log(mean + 1e-30))
        return ops.exp(entropy) / self.num_prototypes

    def collapsed_loss(self, batch_size: int | None) -> float | None:
        """Returns ln(K): all K prototypes are equally likely.

        While the prototypes are frozen a loss near ln(K) is no sign of a
        collapse, so it returns `None`.
        """
        if int(self.steps) < self.freeze_prototypes_steps:
            return None
        return math.log(self.num_prototypes)

    def after_update(self) -> None:
        """Projects the prototypes back onto the unit sphere."""
        self.prototypes.normalize()
