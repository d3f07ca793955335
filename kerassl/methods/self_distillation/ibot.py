"""iBOT: DINO, and the teacher's distribution at each hidden patch."""

import functools
from typing import Any

import keras
from keras import ops

from kerassl import augmentation
from kerassl.augmentation import patch_masks
from kerassl.distributed import DeviceSeedGenerator
from kerassl.encoders import at_size
from kerassl.encoders.tokens import token_parts
from kerassl.layers import DINOHead, MaskedTokens, MomentumNetwork
from kerassl.losses import masked_distillation
from kerassl.methods.self_distillation.dino import (
    DINO,
    TAUGHT,
    check_temperature,
)


@keras.saving.register_keras_serializable(package="kerassl")
class IBOT(DINO):
    """Image BERT pre-training with an online tokenizer.

    As `DINO`, but in half of the large views the student sees a mask token in
    place of some patches. There it has to predict the teacher's distribution
    over prototypes at the same place of the same view, which the teacher sees
    whole (`kerassl.losses.masked_distillation`). Patches and views share the
    head; patches have a center of their own.

    Args:
        encoder: `keras.Model` that contains a ViT, DeiT or DINOv2 of KerasHub,
            or such a backbone. It needs square images.
        num_prototypes: int > 0, K.
        patch_temperature: float > 0, or a callable that returns it for a step:
            the teacher's, for patches.
        patch_weight: float >= 0. The weight of the patches' loss.
        shared_head: bool. Whether views and patches share the heads; with
            `False` patches have heads of their own.
        mask_ratio: (low, high) share of the patches of a masked view that are
            hidden, 0 < low <= high < 1.
        seed: int, of the masks.
        augmenter: as in `DINO`. By default `kerassl.augmentation.dino` at the
            encoder's image size, with iBOT's crops. Large views may be smaller,
            of at least 2x2 patches.
        **kwargs: the other arguments of `DINO`.

    Raises:
        ValueError: if the encoder contains no such ViT, a large view is a
            single patch, or an argument is out of its range; and as `DINO`.

    Metrics: those of `DINO`, for the views, and `patch_loss`.

    Ready-made views: those of the augmenter, with `"mask_1"` and `"mask_2"`,
    float `(N, L)` for the L patches of the two large views: 1 is hidden. Of
    more hidden patches than `mask_ratio` allows, only as many count in the
    loss.

    Example:
    ```python
    encoder = kerassl.encoders.build("vit_small", (224, 224, 3))
    momentum = kerassl.layers.CosineMomentum(0.996, total_steps)
    model = kerassl.IBOT(encoder, momentum=momentum)
    model.compile(kerassl.optimizers.AdamW(5e-4, clipnorm=3.0))
    model.fit(images, batch_size=256, epochs=100)
    ```

    Deviations from bytedance/ibot, besides those of `DINO`: exactly half of a
    batch's large views are masked, with ratios spread evenly over the range, as
    in DINOv2's code; blocks are cut to the exact number of patches.

    Reference:
        - [Zhou et al., 2021](https://arxiv.org/abs/2111.07832)
    """

    metric_names = (*DINO.metric_names, "patch_loss")
    drawn_names = ("mask_1", "mask_2")

    default_views = staticmethod(
        functools.partial(
            augmentation.dino,
            num_local_crops=10,
            crop_area=(0.25, 1.0),
            local_crop_area=(0.05, 0.25),
        )
    )

    def __init__(
        self,
        encoder: Any,
        num_prototypes: int = 8192,
        patch_temperature: Any = 0.04,
        patch_weight: float = 1.0,
        shared_head: bool = True,
        mask_ratio: tuple[float, float] = (0.1, 0.5),
        seed: int = 0,
        augmenter: keras.layers.Layer | None = None,
        **kwargs: Any,
    ):
        low, high = mask_ratio
        if not 0 < low <= high < 1:
            raise ValueError(
                "`mask_ratio` must be (low, high) with 0 < low <= high < 1. "
                f"Received: {mask_ratio}"
            )
        check_temperature("patch_temperature", patch_temperature)
        super().__init__(encoder, num_prototypes, augmenter=augmenter, **kwargs)
        self.patch_temperature = patch_temperature
        self.patch_weight = patch_weight
        self.shared_head = shared_head
        if not shared_head:
            self.patch_projector = self._head("patch_projector")
            self.momentum_patch_projector = MomentumNetwork(
                self.patch_projector, self.momentum
            )
        self.mask_ratio = (low, high)
        self.seed = seed
        self.seed_generator = DeviceSeedGenerator(seed)
        student = token_parts(self.encoder_of(self.taught[0]))
        self.preprocessor = student.preprocessor
        self.rest, self.pool = student.rest, student.pool
        self.embedding = MaskedTokens(student.embedding)
        teacher = token_parts(
            at_size(
                self.momentum_encoder.network, self._size_of(self.taught[0])
            )
        )
        # In a function, so that Keras can't thaw the teacher's layers.
        self.teacher_parts = lambda: teacher
        self.grid = self.embedding.grid[0]
        patches = self.grid**2
        if patches == 1:
            raise ValueError(
                f"{type(self).__name__} hides patches of its first two views, "
                f"and each is a single patch of {self.embedding.size} pixels. "
                "Take larger views, or an encoder with smaller patches."
            )
        #: The largest number of hidden patches of a view.
        self.most_hidden = max(1, round(high * patches))
        self.patch_center = self.add_weight(
            name="patch_center",
            shape=(num_prototypes,),
            dtype="float32",
            initializer="zeros",
            trainable=False,
            autocast=False,
        )

    def untracked_networks(self) -> list[keras.Model]:
        """Returns the teacher's parts."""
        teacher = self.teacher_parts()
        return [teacher.preprocessor, teacher.rest, teacher.pool]

    def heads(self) -> list[tuple[MomentumNetwork, DINOHead]]:
        """Returns the teacher's heads and the student's; patches' come last."""
        pairs = super().heads()
        if not self.shared_head:
            pairs += [(self.momentum_patch_projector, self.patch_projector)]
        return pairs

    def draw(self, count: Any) -> dict[str, Any]:
        """Draws the masks: half of the large views have one."""
        total, patches = TAUGHT * count, self.grid**2
        uniforms = keras.random.uniform(
            (total, 2 + patch_masks.UNIFORMS + patches),
            seed=self.seed_generator,
        )
        # Each masked view's ratio comes from a share of the range of its own.
        rank = ops.argsort(ops.argsort(uniforms[:, 0]))
        at = ops.cast(rank, "float32") + uniforms[:, 1]
        if not isinstance(count, int):
            count = ops.cast(count, "float32")
        at = at / count
        low, high = self.mask_ratio
        ratio = low + (high - low) * at
        counts = patch_masks.between(
            ops.round(ratio * patches), 1.0, float(self.most_hidden)
        )
        counts = ops.where(at < 1.0, counts, ops.zeros_like(counts))
        masks = patch_masks.block_masks(
            uniforms[:, 2 : 2 + patch_masks.UNIFORMS],
            uniforms[:, 2 + patch_masks.UNIFORMS :],
            counts,
            self.grid,
        )
        return dict(zip(self.drawn_names, ops.split(masks, TAUGHT)))

    def forward_views(
        self, views: dict[str, Any], training: bool = False
    ) -> dict[str, Any]:
        """Maps views to logits, with hidden patches for the student."""
        large = ops.concatenate([views[name] for name in self.taught])
        masks = ops.concatenate([views[name] for name in self.drawn_names])
        # Hidden patches come first.
        places = ops.argsort(1.0 - masks, axis=1)[:, : self.most_hidden, None]
        pixels = self.preprocessor(large, training=training)
        embedded = self.embedding(pixels, masks, training=training)
        tokens = self.rest(embedded, training=training)
        features = self.pool(tokens, training=training)
        others = self.augmenter.view_names[TAUGHT:]
        small = (
            self.encode_views(views, others, training=training)
            if others
            else {}
        )
        heads = [head for _, head in self.heads()]
        vectors, hidden = self._vectors(
            heads,
            ops.concatenate([features, *small.values()]) if small else features,
            ops.take_along_axis(self._patches(tokens), places, axis=1),
            training,
        )
        names = [*self.taught, *small]
        outputs = dict(
            zip(names, ops.split(heads[0].last(vectors), len(names)))
        )
        outputs |= {
            "features": features,
            "patches": heads[-1].last(hidden),
            "mask": ops.take_along_axis(masks, places[..., 0], axis=1),
        }
        return outputs | self._teach(large, places, training)

    def _teach(self, large: Any, places: Any, training: bool) -> dict[str, Any]:
        """Returns the teacher's logits, and the centers before this batch."""
        trains = training and self.teacher_trains
        teacher = self.teacher_parts()
        embedded = teacher.embedding(
            teacher.preprocessor(large, training=trains), training=trains
        )
        tokens = teacher.rest(embedded, training=trains)
        features = teacher.pool(tokens, training=trains)
        heads = [copy.network for copy, _ in self.heads()]
        patches, is_centered = self._patches(tokens), self.centering == "mean"
        if not is_centered:
            patches = ops.take_along_axis(patches, places, axis=1)
        vectors, patches = self._vectors(heads, features, patches, trains)
        first, last = heads[0].last, heads[-1].last
        logits = ops.stop_gradient(first(vectors))
        means = {"center": (self.center, ops.mean(logits, axis=0))}
        if is_centered:
            # It is linear, so it maps the mean to the mean logits.
            mean = last(ops.mean(patches, axis=(0, 1))[None])[0]
            means["patch_center"] = (self.patch_center, mean)
            patches = ops.take_along_axis(patches, places, axis=1)
        taught = dict(zip(self.taught, ops.split(logits, TAUGHT)))
        return {
            **{f"teacher_{name}": x for name, x in taught.items()},
            "teacher_patches": ops.stop_gradient(last(patches)),
            **self._centers(means, training),
        }

    def _patches(self, tokens: Any) -> Any:
        """Returns the tokens of patches."""
        return tokens[:, self.embedding.first_tokens :]

    def _vectors(
        self, heads: list[DINOHead], features: Any, patches: Any, training: bool
    ) -> tuple[Any, Any]:
        """Maps views' features `(N, D)` and patches `(M, P, D)` to vectors.

        They pass a shared head as one batch, with common batch statistics, as
        in the authors' code.
        """
        if not self.shared_head:
            return (
                heads[0].vectors(features, training),
                heads[1].vectors(patches, training),
            )
        rows = ops.reshape(patches, (-1, patches.shape[-1]))
        rows = heads[0].vectors(ops.concatenate([features, rows]), training)
        count, shape = ops.shape(features)[0], ops.shape(patches)[:2]
        patches = ops.reshape(rows[count:], (*shape, rows.shape[-1]))
        return rows[:count], patches

    def objective(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """Adds the loss of hidden patches to DINO's of views."""
        scalars = super().objective(outputs)
        mask, shape = outputs["mask"], (-1, self.num_prototypes)
        # Rows, since Sinkhorn counts the hidden patches of all views.
        teacher = self._probabilities(
            ops.reshape(outputs["teacher_patches"], shape),
            outputs.get("patch_center"),
            self._now(self.patch_temperature),
            ops.reshape(mask, (-1,)),
        )
        patch_loss = masked_distillation(
            outputs["patches"],
            ops.reshape(teacher, (-1, mask.shape[1], *shape[1:])),
            mask,
            self.student_temperature,
        )["loss"]
        return {
            **scalars,
            "loss": scalars["loss"] + self.patch_weight * patch_loss,
            "patch_loss": patch_loss,
        }

    def collapsed_loss(self, batch_size: int | None) -> float | None:
        """Returns ln(K), and half of it for the masked half of the views."""
        loss = super().collapsed_loss(batch_size)
        return loss and loss * (1.0 + self.patch_weight / TAUGHT)
