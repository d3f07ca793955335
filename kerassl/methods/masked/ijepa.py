"""I-JEPA: predict a teacher's features of hidden blocks from the rest."""

import functools
from typing import Any

import keras
from keras import ops

from kerassl import augmentation
from kerassl.augmentation import patch_masks
from kerassl.distributed import DeviceSeedGenerator, mean_over_devices
from kerassl.encoders.tokens import token_parts
from kerassl.layers import MomentumNetwork, update_together
from kerassl.layers.patches import select_tokens, sine_positions
from kerassl.losses import feature_prediction, normalize_features
from kerassl.methods.masked.vit import MaskedViT, check_blocks, transformer


@keras.saving.register_keras_serializable(package="kerassl")
class IJEPA(MaskedViT):
    """The image-based joint-embedding predictive architecture.

    An image has a few target blocks, rectangles of patches that may overlap.
    The encoder, a ViT, sees only patches outside of them. For each block, a
    narrow transformer gets these encoded patches, and at the places of the
    block a mask token; there it predicts the features that a teacher, a
    momentum copy of the encoder, has of the whole image
    (`kerassl.losses.feature_prediction`). Views are only cropped and flipped,
    and no pixels are predicted.

    The teacher is what `embed`, `save_to_preset`, runs and monitors use:
    `feature_encoder`. Its class token isn't trained: take encoders whose
    features are the mean of the patches' (`pooling="mean"`).

    Args:
        encoder: `keras.Model` that contains a `keras_hub.models.ViTBackbone`,
            such as `kerassl.encoders.build("vit_small", ..., pooling="mean")`.
            It needs square images and a class token, which joins the visible
            patches. Its position embeddings are set to fixed sines and cosines,
            unless they have learned.
        num_targets: int > 0, the number of blocks.
        target_ratio: float in (0, 1), a block's share of the patches. The
            encoder sees the share that is left if no blocks overlap.
        predictor_dim: int, the width of the predictor: a multiple of 4 and of
            `predictor_heads`.
        predictor_depth: int > 0, the number of blocks of the predictor.
        predictor_heads: int > 0, the number of attention heads of it.
        momentum: float in [0, 1], of the teacher, or a callable that returns
            it for a step, such as `kerassl.optimizers.Ramp`.
        seed: int, of the blocks.
        augmenter: a `ViewAugmenter` of one view. By default
            `kerassl.augmentation.crop_flip` at the encoder's image size, with
            crops of 0.3 to 1 of the area.
        **kwargs: the arguments of `keras.Model`.

    Raises:
        ValueError: if the encoder contains no such ViT, an argument is out of
            range, or the targets leave no patch.

    Warns:
        UserWarning: if the encoder's feature is the class token.

    Metrics: `target_std`, the standard deviation of the normalized targets over
    images and places: 0 in a collapse, at most 1.

    Ready-made views: the images, and optionally `"targets"`, int
    `(N, num_targets, T)`, and `"context"`, int `(N, K)`: indices of patches.

    Example:
    ```python
    encoder = kerassl.encoders.build(
        "vit_small", (224, 224, 3), pooling="mean"
    )
    momentum = kerassl.optimizers.Ramp(0.996, 1.0, total_steps, "linear")
    model = kerassl.IJEPA(encoder, momentum=momentum)
    model.compile(kerassl.optimizers.AdamW(2e-4, weight_decay=0.05))
    model.fit(images, batch_size=256, epochs=300)
    ```

    Deviations from the authors' code, of which nothing is copied: all blocks
    have the same number of patches, 0.175 of all, where there it is drawn from
    0.15 to 0.2 for each batch; their shapes are drawn for each block. The
    encoder sees a random part of the patches outside of them, of a fixed
    number, where there it is a large block without them, cut to the smallest
    number in the batch. KerasHub's ViT has a class token. Encoder and predictor
    start with Xavier's bound, there with truncated normals of a standard
    deviation of 0.02, and the output kernels of block l are divided by
    sqrt(2l). Views are flipped, and resized with a bicubic filter; there they
    aren't flipped, and the filter is bilinear.

    Reference:
        - [Assran et al., 2023](https://arxiv.org/abs/2301.08243)
    """

    metric_names = ("target_std",)
    drawn_names = ("targets", "context")
    pooling = "mean"
    default_views = staticmethod(
        functools.partial(augmentation.crop_flip, crop_area=(0.3, 1.0))
    )
    collapse_advice = (
        "If `target_std` falls to 0, try a momentum closer to 1, a lower "
        "learning rate, or a longer warmup."
    )

    def __init__(
        self,
        encoder: Any,
        num_targets: int = 4,
        target_ratio: float = 0.175,
        predictor_dim: int = 384,
        predictor_depth: int = 6,
        predictor_heads: int = 12,
        momentum: Any = 0.996,
        seed: int = 0,
        augmenter: keras.layers.Layer | None = None,
        **kwargs: Any,
    ):
        super().__init__(encoder, augmenter, **kwargs)
        patches = self.grid**2
        self.target_size = round(target_ratio * patches)
        self.visible = patches - num_targets * self.target_size
        if min(num_targets, self.target_size, self.visible) < 1:
            raise ValueError(
                "`num_targets` times `target_ratio` must hide some of the "
                f"{patches} patches and leave others visible. Received: "
                f"num_targets={num_targets}, target_ratio={target_ratio}"
            )
        check_blocks(
            "predictor", predictor_dim, predictor_depth, predictor_heads
        )
        self.num_targets = num_targets
        self.target_ratio = target_ratio
        self.predictor_dim = predictor_dim
        self.predictor_depth = predictor_depth
        self.predictor_heads = predictor_heads
        self.momentum = momentum
        self.seed = seed
        self.seed_generator = DeviceSeedGenerator(seed)
        self._make_predictor()
        self.momentum_encoder = MomentumNetwork(self.encoder, momentum)
        teacher = token_parts(self.momentum_encoder.network)
        # In a function, so that Keras can't thaw the teacher's layers.
        self.teacher_parts = lambda: teacher

    def untracked_networks(self) -> list[keras.Model]:
        """Returns the teacher's parts."""
        teacher = self.teacher_parts()
        return [teacher.preprocessor, teacher.rest]

    def _make_predictor(self) -> None:
        width, policy = self.predictor_dim, self.dtype_policy
        # Sent to the device once.
        self.predictor_positions = ops.convert_to_tensor(
            sine_positions(self.grid, width)[1:]
        )
        self.mask_token = self.add_weight(
            name="mask_token",
            shape=(1, 1, width),
            initializer=keras.initializers.RandomNormal(stddev=0.02),
        )
        self.predictor_embedding = keras.layers.Dense(
            width, dtype=policy, name="predictor_embedding"
        )
        self.predictor_embedding.build((None, None, self.backbone.hidden_dim))
        self.predictor = transformer(
            "predictor",
            width,
            self.predictor_depth,
            self.predictor_heads,
            self.visible + self.target_size,
            policy,
        )
        self.predictor_output = keras.layers.Dense(
            self.backbone.hidden_dim, dtype=policy, name="predictor_output"
        )
        self.predictor_output.build((None, None, width))

    @property
    def feature_encoder(self) -> keras.Model:
        """The teacher's encoder."""
        return self.momentum_encoder.network

    def draw(self, count: Any) -> dict[str, Any]:
        """Draws the target blocks, and visible patches outside of them."""
        patches, numbers = self.grid**2, 3 * self.num_targets
        drawn = keras.random.uniform(
            (count, numbers + patches), seed=self.seed_generator
        )
        targets = patch_masks.target_blocks(
            ops.reshape(drawn[:, :numbers], (-1, self.num_targets, 3)),
            self.target_size,
            self.grid,
        )
        noise = drawn[:, numbers:]
        return {
            "targets": targets,
            "context": patch_masks.context_patches(
                noise, targets, self.visible
            ),
        }

    def forward_views(
        self, views: dict[str, Any], training: bool = False
    ) -> dict[str, Any]:
        """Encodes the visible patches, and predicts features of the blocks."""
        targets, context = views["targets"], views["context"]
        pixels = self.pixels(views, training)
        tokens = self.embedding(pixels, training=training)
        tokens = self.blocks(select_tokens(tokens, context), training=training)
        return {
            "predictions": self.predict_blocks(
                tokens[:, 1:], context, targets, training
            ),
            "targets": self._teach(views, targets),
        }

    def predict_blocks(
        self, tokens: Any, context: Any, targets: Any, training: bool = False
    ) -> Any:
        """Predicts features of blocks, each on its own.

        Args:
            tokens: tensor `(N, K, W)`, encoded patches.
            context: int tensor `(N, K)`, their places.
            targets: int tensor `(N, M, T)`, the places in the blocks.
            training: bool.

        Returns:
            A tensor `(N, M, T, W)`.
        """
        blocks, length = targets.shape[1:]
        x = self.predictor_embedding(tokens)
        x = x + self._positions(context, x.dtype)
        # A row for each block: its own copy of the context, then its places.
        x = ops.repeat(x[:, None], blocks, axis=1)
        x = ops.reshape(x, (-1, context.shape[1], self.predictor_dim))
        hidden = ops.reshape(targets, (-1, length))
        masks = ops.cast(self.mask_token, x.dtype)
        masks = masks + self._positions(hidden, x.dtype)
        x = ops.concatenate([x, masks], axis=1)
        *transformer_blocks, norm = self.predictor
        for block in transformer_blocks:
            x = block(x, training=training)
        x = self.predictor_output(norm(x[:, -length:]))
        return ops.reshape(x, (-1, blocks, length, x.shape[-1]))

    def _positions(self, places: Any, dtype: Any) -> Any:
        table = ops.convert_to_tensor(self.predictor_positions, dtype)
        return ops.take(table, places, axis=0)

    def _teach(self, views: dict[str, Any], targets: Any) -> Any:
        """Returns the teacher's features `(N, M, T, W)` of the blocks."""
        teacher = self.teacher_parts()
        (images,) = (views[name] for name in self.augmenter.view_names)
        pixels = teacher.preprocessor(images, training=False)
        embedded = teacher.embedding(pixels, training=False)
        tokens = teacher.rest(embedded, training=False)
        blocks, length = targets.shape[1:]
        places = ops.reshape(targets, (-1, blocks * length, 1))
        found = ops.take_along_axis(tokens[:, 1:], places, axis=1)
        found = ops.reshape(found, (-1, blocks, length, tokens.shape[-1]))
        return ops.stop_gradient(found)

    def objective(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """Compares predictions with the teacher's features."""
        targets = outputs["targets"]
        found = normalize_features(targets)
        mean = mean_over_devices(ops.mean(found, axis=(0, 1, 2)))
        squares = mean_over_devices(ops.mean(found**2, axis=(0, 1, 2)))
        variance = ops.relu(squares - mean**2)
        return {
            **feature_prediction(outputs["predictions"], targets),
            "target_std": ops.mean(ops.sqrt(variance)),
        }

    def collapsed_loss(self, batch_size: int | None) -> float | None:
        """Returns 0: features that are all the same can be predicted."""
        return 0.0

    def after_update(self) -> None:
        """Moves the teacher."""
        # The authors' schedule begins with the first update.
        update_together(
            [(self.momentum_encoder, self.encoder)],
            ops.convert_to_tensor(self.optimizer.iterations) - 1,
        )
