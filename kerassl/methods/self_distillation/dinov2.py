"""DINOv2's objective: iBOT with Sinkhorn's shares and KoLeo."""

import functools
import math
from typing import Any

import keras
from keras import ops

from kerassl import augmentation
from kerassl.distributed import gather, local_indices
from kerassl.losses import koleo
from kerassl.losses.koleo import EPSILON
from kerassl.methods.self_distillation.dino import TAUGHT
from kerassl.methods.self_distillation.ibot import IBOT


@keras.saving.register_keras_serializable(package="kerassl")
class DINOv2(IBOT):
    """The objective of DINOv2, made for going on from its weights.

    As `IBOT`, with three changes. The student's class tokens of a large view,
    before the head, keep away from each other (`kerassl.losses.koleo`). The
    teacher's distributions come from Sinkhorn's shares of the batch instead of
    a center. Patches have heads of their own.

    Args:
        encoder: `keras.Model` that contains a ViT, DeiT or DINOv2 of KerasHub,
            or such a backbone. It needs square images. For released weights
            `kerassl.encoders.build("hub:dinov2_small", ...)`.
        num_prototypes: int > 0, K.
        koleo_weight: float >= 0. The weight of KoLeo's loss, for each of the
            two large views.
        centering: as in `DINO`. The code's short runs have `"mean"`.
        shared_head: as in `IBOT`. The code's short runs have `True`.
        momentum: as in `DINO`.
        augmenter: as in `DINO`. By default `kerassl.augmentation.dino` at the
            encoder's image size, with DINOv2's crops.
        **kwargs: the other arguments of `IBOT` and `DINO`.

    Raises:
        ValueError: as `IBOT`.

    Metrics: those of `IBOT`, and `koleo_loss`, the sum over both views: it
    rises as class tokens of different images come near each other.

    Ready-made views: as for `IBOT`.

    Example:
    ```python
    encoder = kerassl.encoders.build("hub:dinov2_small", (224, 224, 3))
    momentum = kerassl.layers.CosineMomentum(0.994, total_steps)
    model = kerassl.DINOv2(encoder, num_prototypes=8192, momentum=momentum)
    model.compile(kerassl.optimizers.AdamW(1e-5, clipnorm=3.0))
    model.fit(images, batch_size=64, epochs=10)
    ```

    Deviations from facebookresearch/dinov2, besides those of `IBOT`: KoLeo
    seeks neighbors in the global batch, where the code does on each device;
    gradients are clipped by variable, where the code clips the backbone and
    each head as a whole. The class fixes the prototypes' scales by default; the
    code trains them: `train_scale=True`. With `centering="mean"` the patches'
    center is the mean of all patches, as in iBOT's code; in DINOv2's it is that
    of the hidden ones. The code lowers the learning rate of the patch embedding
    to a fifth (`patch_embed_lr_mult: 0.2`), and skips all blocks with the same
    probability (0.3 in short runs, 0.4 for ViT-L/14), where `stochastic_depth`
    rises from 0. Its ViTs have LayerScale, which starts at 1e-5; KerasHub's
    DINOv2s have it too, but kerassl's ViTs don't.

    Reference:
        - [Oquab et al., 2023](https://arxiv.org/abs/2304.07193)
    """

    metric_names = (*IBOT.metric_names, "koleo_loss")

    default_views = staticmethod(
        functools.partial(
            augmentation.dino,
            crop_area=(0.32, 1.0),
            local_crop_area=(0.05, 0.32),
        )
    )

    def __init__(
        self,
        encoder: Any,
        num_prototypes: int = 65536,
        koleo_weight: float = 0.1,
        centering: str = "sinkhorn",
        shared_head: bool = False,
        momentum: Any = 0.994,
        augmenter: keras.layers.Layer | None = None,
        **kwargs: Any,
    ):
        super().__init__(
            encoder,
            num_prototypes,
            centering=centering,
            shared_head=shared_head,
            momentum=momentum,
            augmenter=augmenter,
            **kwargs,
        )
        self.koleo_weight = koleo_weight

    def objective(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """Adds KoLeo's loss of each large view to iBOT's."""
        scalars = super().objective(outputs)
        spread = sum(
            koleo(gather(view), local_indices(view))["loss"]
            for view in ops.split(outputs["features"], TAUGHT)
        )
        return {
            **scalars,
            "loss": scalars["loss"] + self.koleo_weight * spread,
            "koleo_loss": spread,
        }

    def collapsed_loss(self, batch_size: int | None) -> float | None:
        """Returns iBOT's, with KoLeo's for equal class tokens."""
        loss = super().collapsed_loss(batch_size)
        width = self.encoder.output_shape[-1]
        spread = -math.log(EPSILON * (1.0 + math.sqrt(width)))
        return loss and loss + self.koleo_weight * TAUGHT * spread
