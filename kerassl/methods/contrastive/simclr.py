"""SimCLR: all other images of the batch are negatives."""

import math
from typing import Any

import keras

from kerassl import encoders
from kerassl.distributed import gather, local_indices
from kerassl.losses import nt_xent
from kerassl.methods.base import SelfSupervisedModel


@keras.saving.register_keras_serializable(package="kerassl")
class SimCLR(SelfSupervisedModel):
    """A simple framework for contrastive learning.

    Two random views of each image pass through the encoder and a projector, as
    one batch of 2N. Each projection has to identify the other view of its image
    among the 2N - 1 others (`kerassl.losses.nt_xent`). The projector is
    discarded after training: `encoder` and `embed` return the features before
    it.

    Args:
        encoder: `keras.Model` from images to features `(N, D)`, or a KerasHub
            or KerasCV backbone.
        temperature: float > 0.
        projection_dim: int. The width of the projections.
        version: 1 or 2: the projector has two dense layers as in the first
            paper, or three as in the second.
        hidden_dim: int, or None. The width of the projector's hidden layers.
            By default the width of the features, as in the authors' code.
        decoupled: bool. Leaves the partner out of the loss's denominator (DCL),
            which helps with small batches and in short runs.
        supervised: bool. Takes all projections of an image's class for its
            partners (SupCon). `fit` then needs labels. Not together with
            `decoupled`.
        augmenter: a `ViewAugmenter` that makes two views. By default
            `kerassl.augmentation.simclr` at the encoder's image size.
        **kwargs: the arguments of `keras.Model`.

    Raises:
        ValueError: if an argument is out of its range, `decoupled` and
            `supervised` are both set, or the augmenter makes other than two
            views.

    Metrics: `contrastive_accuracy`, the share of projections that identify
    their partner, or one of them.

    Example:
    ```python
    encoder = kerassl.encoders.build("resnet_18_small", (32, 32, 3))
    model = kerassl.SimCLR(encoder, temperature=0.5)
    model.compile(kerassl.optimizers.LARS(1.0, weight_decay=1e-4))
    model.fit(images, batch_size=512, epochs=100)
    features = model.embed(images)
    ```

    Deviations from google-research/simclr: the loss is the paper's mean over
    2N terms (the code's is twice that, which matters to optimizers that depend
    on the gradient's scale); kerassl's encoders normalize colors, the code's
    don't; color jitter and blur are described in `kerassl.augmentation`;
    kerassl's ResNets initialize all scales to 1, the code's set the last one of
    each block to 0; the second paper's memory bank with a momentum encoder is
    left out. From HobbitLong/SupContrast: its loss is the paper's times
    temperature / 0.07; its projector has biases and no batch normalization,
    where this one is SimCLR's.

    Reference:
        - [Chen et al., 2020](https://arxiv.org/abs/2002.05709)
        - [Chen et al., 2020, SimCLRv2](https://arxiv.org/abs/2006.10029)
        - [Khosla et al., 2020, SupCon](https://arxiv.org/abs/2004.11362)
        - [Yeh et al., 2021, DCL](https://arxiv.org/abs/2110.06848)
    """

    metric_names = ("contrastive_accuracy",)
    collapse_advice = (
        "Try another learning rate, a longer warmup, a larger batch, or a "
        "temperature between 0.1 and 0.5."
    )
    num_views = 2

    def __init__(
        self,
        encoder: Any,
        temperature: float = 0.1,
        projection_dim: int = 128,
        version: int = 1,
        hidden_dim: int | None = None,
        decoupled: bool = False,
        supervised: bool = False,
        augmenter: keras.layers.Layer | None = None,
        **kwargs: Any,
    ):
        if temperature <= 0:
            raise ValueError(
                f"`temperature` must be above 0. Received: {temperature}"
            )
        if version not in (1, 2):
            raise ValueError(f"`version` must be 1 or 2. Received: {version}")
        if decoupled and supervised:
            raise ValueError(
                "`decoupled` and `supervised` are two losses: choose one."
            )
        super().__init__(encoder, augmenter, **kwargs)
        self.temperature = temperature
        self.projection_dim = projection_dim
        self.version = version
        self.hidden_dim = hidden_dim
        self.decoupled = decoupled
        self.supervised = supervised
        self.needs_labels = supervised
        width = self.encoder.output_shape[-1]
        self.projector = self.head(
            "projector",
            width,
            (width if hidden_dim is None else hidden_dim,) * version
            + (projection_dim,),
            output_normalization="batch_no_bias",
        )

    def forward_views(
        self, views: dict[str, Any], training: bool = False
    ) -> dict[str, Any]:
        """Projects both views in one pass: one set of batch statistics."""
        first, second = self.encode_views(
            views, head=self.projector, training=training
        ).values()
        return {"projection_1": first, "projection_2": second}

    def objective(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """Compares the device's projections with the global batch's."""
        return nt_xent(
            gather(outputs["projection_1"]),
            gather(outputs["projection_2"]),
            self.temperature,
            local_indices(outputs["projection_1"]),
            self.decoupled,
            gather(outputs["labels"]) if self.needs_labels else None,
        )

    def collapsed_loss(self, batch_size: int | None) -> float | None:
        """Returns ln(2N - 1): one of 2N - 1 others is the partner.

        Decoupled it is ln(2N - 2), since the partner isn't counted.
        """
        if batch_size is None or (self.decoupled and batch_size < 2):
            return None
        return math.log(2 * batch_size - (2 if self.decoupled else 1))

    def encoder_with_projector(self, layers: int = 1) -> keras.Model:
        """Returns the encoder followed by the projector's first layers.

        The second paper fine-tunes from the first layer of its three-layer
        projector, not from the encoder's output. The result shares its weights
        with this model and consists of core Keras layers only.

        Args:
            layers: int, how many of the hidden dense layers to keep, with
                their batch normalization and ReLU.

        Returns:
            A `keras.Model` from images to features `(N, D)`.

        Raises:
            ValueError: if the projector has fewer hidden layers.
        """
        if not 1 <= layers <= self.version:
            raise ValueError(
                f"The projector has {self.version} hidden layers. "
                f"Received: layers={layers}"
            )
        # A nested model, since the encoder's layers may have the same names.
        hidden = keras.Sequential(
            self.projector.hidden_layers(layers), name="projector"
        )
        longer = keras.Model(
            self.encoder.input,
            hidden(self.encoder.output),
            name=f"{self.encoder.name}_projector",
        )
        return encoders.accepted(longer)
