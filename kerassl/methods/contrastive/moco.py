"""MoCo v1 and v2: keys from a momentum encoder, and negatives from a queue."""

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from kerassl import augmentation
from kerassl.distributed import (
    DeviceSeedGenerator,
    gather,
    local_rows,
    replicas,
)
from kerassl.execution import local_statistics
from kerassl.layers import FeatureQueue, MomentumNetwork, update_together
from kerassl.losses import info_nce, unit_vectors
from kerassl.methods.base import SelfSupervisedModel

TEMPERATURES = {1: 0.07, 2: 0.2}


@keras.saving.register_keras_serializable(package="kerassl")
class MoCo(SelfSupervisedModel):
    """Momentum contrast, versions 1 and 2.

    One view of each image becomes the query, through encoder and projector; the
    other becomes the key, through momentum copies of both. Each query has to
    identify its key among a queue of keys from earlier batches
    (`kerassl.losses.info_nce`). A step follows the paper's order: the loss uses
    the old queue, then the new keys are enqueued; the momentum networks are
    updated after the optimizer step, before the next keys.

    With batch normalization a query can recognize its key by the statistics of
    their common batch. `batch_groups` applies the paper's remedy, even on one
    device: queries and keys are normalized in groups, with the keys shuffled.

    Args:
        encoder: `keras.Model` from images to features `(N, D)`, or a KerasHub
            or KerasCV backbone.
        version: 1 or 2: a linear projector, or one with two layers.
        temperature: float > 0. By default the version's, 0.07 or 0.2.
        projection_dim: int. The width of the projections.
        queue_size: int. The number of keys in the queue, at least the global
            batch size.
        momentum: float in [0, 1], of the momentum networks, or a callable that
            returns it for a step.
        batch_groups: int > 0. The number of groups of the global batch with
            their own batch statistics, like the paper's 8 devices. Each group
            needs 2 images. With 1 nothing is shuffled.
        augmenter: a `ViewAugmenter` of two views. By default
            `kerassl.augmentation.moco_v1` or `moco_v2`, the version's, at the
            encoder's image size.
        seed: int or `None`, for the queue's initial values and the shuffling.
        **kwargs: the arguments of `keras.Model`.

    Raises:
        ValueError: if an argument is out of its range, or the augmenter makes
            other than two views.

    Metrics: `contrastive_accuracy`, the share of queries that identify their
    key.

    Example:
    ```python
    encoder = kerassl.encoders.build("resnet_18_small", (32, 32, 3))
    model = kerassl.MoCo(encoder, queue_size=4096, momentum=0.99)
    model.compile(keras.optimizers.SGD(0.06, momentum=0.9))
    model.fit(images, batch_size=512, epochs=200)
    ```

    Deviations from facebookresearch/moco: the batch size needn't divide the
    queue size, so the last partial batch is used. With groups, the moving
    statistics are updated once per group; the code updates them with the first
    device's group only.

    Reference:
        - [He et al., 2020](https://arxiv.org/abs/1911.05722)
        - [Chen et al., 2020, v2](https://arxiv.org/abs/2003.04297)
    """

    metric_names = ("contrastive_accuracy",)
    num_views = 2
    default_views: Callable[[int], keras.layers.Layer] = staticmethod(
        augmentation.moco_v2
    )

    def __init__(
        self,
        encoder: Any,
        version: int = 2,
        temperature: float | None = None,
        projection_dim: int = 128,
        queue_size: int = 65536,
        momentum: Any = 0.999,
        batch_groups: int = 1,
        augmenter: keras.layers.Layer | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ):
        if version not in TEMPERATURES:
            raise ValueError(
                f"`version` must be 1 or 2. Received: {version} (version 3 is "
                "`kerassl.MoCoV3`)"
            )
        if temperature is None:
            temperature = TEMPERATURES[version]
        if temperature <= 0 or batch_groups < 1:
            raise ValueError(
                "`temperature` and `batch_groups` must be positive. Received: "
                f"temperature={temperature}, batch_groups={batch_groups}"
            )
        if version == 1:
            self.default_views = augmentation.moco_v1
        super().__init__(encoder, augmenter, **kwargs)
        self.version = version
        self.temperature = temperature
        self.projection_dim = projection_dim
        self.queue_size = queue_size
        self.momentum = momentum
        self.batch_groups = batch_groups
        self.seed = seed
        width = self.encoder.output_shape[-1]
        # Neither version has batch normalization in the head.
        self.projector = self.head(
            "projector",
            width,
            (width,) * (version - 1) + (projection_dim,),
            hidden_normalization=False,
            hidden_bias=True,
            output_bias=True,
        )
        self.momentum_encoder = self.momentum_copy(momentum)
        self.momentum_projector = MomentumNetwork(self.projector, momentum)
        self.queue = FeatureQueue(queue_size, projection_dim, seed=seed)
        self.seed_generator = DeviceSeedGenerator(seed)

    def forward_views(
        self, views: dict[str, Any], training: bool = False
    ) -> dict[str, Any]:
        """Makes queries and keys, and returns the queue before these keys."""
        first, second = self.augmenter.view_names
        queries, keys = views[first], views[second]
        negatives = self.queue.snapshot()
        q = self.projector(
            self._in_groups(self.encoder_of(first), queries, training),
            training=training,
        )
        order = self._shuffled_order(keys, training)
        if order is not None:
            keys = local_rows(ops.take(gather(keys), order, axis=0))
        k = self.momentum_projector(
            self._in_groups(self.momentum_encoder_of(second), keys, training),
            training=training,
        )
        if order is not None:
            k = local_rows(ops.take(gather(k), ops.argsort(order), axis=0))
        if training:
            self.queue.enqueue(gather(unit_vectors(k)))
        return {"query": q, "key": k, "negatives": negatives}

    def objective(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """Compares each query with its key and the queue."""
        return info_nce(
            outputs["query"],
            outputs["key"],
            self.temperature,
            outputs["negatives"],
        )

    def collapsed_loss(self, batch_size: int | None) -> float | None:
        """Returns ln(K + 1): one of K + 1 keys is the right one."""
        return math.log(self.queue_size + 1)

    def after_update(self) -> None:
        """Updates the momentum networks."""
        update_together(
            [
                (self.momentum_encoder, self.encoder),
                (self.momentum_projector, self.projector),
            ],
            self.optimizer.iterations,
        )

    def check_batch(self, size: int) -> None:
        """Refuses a batch that exceeds the queue or is too small for groups."""
        super().check_batch(size)
        if size < 2 * self.batch_groups and self.batch_groups > 1:
            raise ValueError(
                f"A batch of {size} images (maybe the last one) can't be split "
                f"in {self.batch_groups} groups of at least 2. Choose a larger "
                "batch, fewer `batch_groups`, or drop the last batch."
            )

    def _in_groups(self, network: Any, images: Any, training: bool) -> Any:
        """Runs a network on one group of the batch after another."""
        if self.batch_groups == 1 or not training:
            return network(images, training=training)
        if self.batch_groups % replicas():
            raise ValueError(
                f"`batch_groups={self.batch_groups}` can't be shared out to "
                f"{replicas()} devices. Choose a multiple of it, or 1."
            )
        groups = self.batch_groups // replicas()
        count = ops.shape(images)[0]
        # Group sizes may differ by one, so that any batch size works.
        ends = [count * i // groups for i in range(groups + 1)]
        with local_statistics():
            return ops.concatenate(
                [
                    network(images[start:end], training=training)
                    for start, end in zip(ends, ends[1:])
                ]
            )

    def _shuffled_order(self, images: Any, training: bool) -> Any:
        if self.batch_groups == 1 or not training:
            return None
        # Sorted noise, since `keras.random.shuffle` runs on the host with some
        # backends.
        noise = keras.random.uniform(
            (ops.shape(images)[0],), seed=self.seed_generator
        )
        return ops.argsort(gather(noise))
