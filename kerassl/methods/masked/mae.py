"""MAE: predict the patches that the encoder didn't see."""

from typing import Any

import keras
import numpy as np
from keras import ops

from kerassl import encoders
from kerassl.distributed import DeviceSeedGenerator, predict_on_one_device
from kerassl.layers.patches import (
    patchify,
    rank_patches,
    restore_tokens,
    select_tokens,
    sine_positions,
)
from kerassl.losses import (
    masked_reconstruction,
    normalize_patches,
    visible_color,
)
from kerassl.losses.numbers import at_least
from kerassl.methods.masked.vit import (
    MaskedViT,
    check_blocks,
    check_hidden,
    transformer,
)


@keras.saving.register_keras_serializable(package="kerassl")
class MAE(MaskedViT):
    """Masked autoencoder.

    A random 75 % of an image's patches are hidden. The encoder, a ViT, sees
    only the visible patches and the class token, so its step is several times
    cheaper. A small decoder gets the encoded patches, with a mask token in
    place of each hidden one, and predicts the hidden pixels.

    The encoder remains a stock KerasHub model:
    `model.encoder.get_layer("backbone")` can be saved with `save_to_preset` and
    loads without kerassl. MAE only sets its position embeddings to fixed sines
    and cosines, unless they have learned.

    Args:
        encoder: `keras.Model` that contains a `keras_hub.models.ViTBackbone`,
            such as `kerassl.encoders.build("vit_small", ...)`, or such a
            backbone. It needs square images and a class token.
        mask_ratio: float in (0, 1), the fraction of patches to hide.
        decoder_dim: int, the width of the decoder: a multiple of 4 and of
            `decoder_heads`.
        decoder_depth: int > 0, the number of blocks of the decoder.
        decoder_heads: int > 0, the number of attention heads of the decoder.
        norm_pix_loss: bool. With `True`, the targets are pixels normalized by
            the mean and standard deviation of their patch, which makes better
            features. With `False`, they are pixels as normalized by the
            encoder.
        seed: int, of the masks.
        augmenter: a `ViewAugmenter` of one view. By default
            `kerassl.augmentation.crop_flip` at the encoder's image size.
        **kwargs: the arguments of `keras.Model`.

    Raises:
        ValueError: if the encoder contains no such ViT, or an argument is out
            of range.

    Metrics: `relative_error`, the squared error on hidden patches relative to
    that of a single color: 0 is perfect, 1 is no better than the color. With
    `norm_pix_loss` the color is the mean of each hidden patch, so the metric is
    close to the loss, and only the pattern within a patch has to be predicted.
    Otherwise it is the mean color of the visible patches of the image.

    Ready-made views: the images, and optionally `"noise"`, float `(N, L)` for L
    patches: those with the smallest numbers stay visible.

    Example:
    ```python
    encoder = kerassl.encoders.build("vit_small", (224, 224, 3))
    model = kerassl.MAE(encoder)
    rate = kerassl.optimizers.warmup_cosine(1.5e-4, total_steps=100_000)
    model.compile(kerassl.optimizers.AdamW(rate, beta_2=0.95))
    model.fit(images, batch_size=256, epochs=800)
    pictures = model.reconstruct(images[:8])
    ```

    Deviations from facebookresearch/mae, all due to KerasHub's ViT: biases
    start with small offsets; queries, keys and values are three kernels, each
    with Xavier's bound, instead of one kernel with a smaller bound; the class
    token starts with a standard deviation of 0.05 instead of 0.02.

    Reference:
        - [He et al., 2021](https://arxiv.org/abs/2111.06377)
    """

    metric_names = ("relative_error",)
    drawn_names = ("noise",)

    def __init__(
        self,
        encoder: Any,
        mask_ratio: float = 0.75,
        decoder_dim: int = 512,
        decoder_depth: int = 8,
        decoder_heads: int = 16,
        norm_pix_loss: bool = True,
        seed: int = 0,
        augmenter: keras.layers.Layer | None = None,
        **kwargs: Any,
    ):
        super().__init__(encoder, augmenter, **kwargs)
        self.mask_ratio = mask_ratio
        self.decoder_dim = decoder_dim
        self.decoder_depth = decoder_depth
        self.decoder_heads = decoder_heads
        self.norm_pix_loss = norm_pix_loss
        self.seed = seed
        self.seed_generator = DeviceSeedGenerator(seed)
        patches = self.grid**2
        self.visible = int(patches * (1 - mask_ratio))
        check_hidden(mask_ratio, patches - self.visible, patches)
        check_blocks("decoder", decoder_dim, decoder_depth, decoder_heads)
        self._make_decoder()

    def _make_decoder(self) -> None:
        width, policy = self.decoder_dim, self.dtype_policy
        # Sent to the device once.
        self.decoder_positions = ops.convert_to_tensor(
            sine_positions(self.grid, width)[None]
        )
        self.mask_token = self.add_weight(
            name="mask_token",
            shape=(1, 1, width),
            initializer=keras.initializers.RandomNormal(stddev=0.02),
        )
        self.decoder_embedding = keras.layers.Dense(
            width, dtype=policy, name="decoder_embedding"
        )
        self.decoder_embedding.build((None, None, self.backbone.hidden_dim))
        *self.decoder, self.decoder_norm = transformer(
            "decoder",
            width,
            self.decoder_depth,
            self.decoder_heads,
            self.grid**2 + 1,
            policy,
        )
        self.painter = keras.layers.Dense(
            self.patch_size**2 * self.backbone.image_shape[-1],
            dtype=policy,
            name="painter",
        )
        self.painter.build((None, None, width))

    def draw(self, count: Any) -> dict[str, Any]:
        """Draws a number for each patch; the smallest stay visible."""
        return {
            "noise": keras.random.uniform(
                (count, self.grid**2), seed=self.seed_generator
            )
        }

    def forward_views(
        self, views: dict[str, Any], training: bool = False
    ) -> dict[str, Any]:
        """Encodes the visible patches, and predicts all patches."""
        pixels = self.pixels(views, training)
        order, rank = rank_patches(views["noise"])
        tokens = self.encode(pixels, order[:, : self.visible], training)
        return {
            "predictions": self.decode(tokens, rank, training),
            "patches": patchify(ops.cast(pixels, "float32"), self.patch_size),
            "mask": ops.cast(rank >= self.visible, "float32"),
        }

    def encode(self, pixels: Any, visible: Any, training: bool = False) -> Any:
        """Encodes some patches of each image.

        Args:
            pixels: tensor `(N, S, S, C)`, normalized as the ViT expects.
            visible: int tensor `(N, K)`, the indices of the visible patches.
            training: bool.

        Returns:
            A tensor `(N, 1 + K, D)`, the class token first.
        """
        tokens = self.embedding(pixels, training=training)
        return self.blocks(select_tokens(tokens, visible), training=training)

    def decode(self, tokens: Any, rank: Any, training: bool = False) -> Any:
        """Predicts the pixels of all patches.

        Args:
            tokens: tensor `(N, 1 + K, D)` that `encode` returned.
            rank: int tensor `(N, L)`: the index of each patch among the K
                encoded ones; from K on, the patch is hidden.
            training: bool.

        Returns:
            A float32 tensor `(N, L, P)` of pixels, normalized by patch with
            `norm_pix_loss`.
        """
        x = self.decoder_embedding(tokens)
        x = restore_tokens(x, self.mask_token, rank)
        x = x + ops.convert_to_tensor(self.decoder_positions, x.dtype)
        for block in self.decoder:
            x = block(x, training=training)
        x = self.painter(self.decoder_norm(x))
        return ops.cast(x[:, 1:], "float32")

    def objective(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """Compares predictions with the hidden patches."""
        patches, mask = outputs["patches"], outputs["mask"]
        if self.norm_pix_loss:
            targets, _, _ = normalize_patches(patches)
            one_color = ops.zeros_like(targets)
        else:
            channels = self.backbone.image_shape[-1]
            targets = patches
            one_color = visible_color(patches, mask, channels)
        predictions = outputs["predictions"]
        loss = masked_reconstruction(predictions, targets, mask)["loss"]
        worst = masked_reconstruction(one_color, targets, mask)["loss"]
        return {
            "loss": loss,
            "relative_error": loss / at_least(worst, 1e-6),
        }

    def reconstruct(self, images: Any, noise: Any = None) -> dict[str, Any]:
        """Hides patches of images and predicts them, for pictures.

        With `norm_pix_loss` the model doesn't predict the mean and standard
        deviation of a patch. As in the paper's pictures, they are taken from
        the true patch.

        Args:
            images: array `(N, S, S, C)` of the encoder's size, uint8 or float
                in [0, 255].
            noise: array `(N, L)`: the patches with the smallest numbers stay
                visible. By default random, but the same in each call.

        Returns:
            A dict of float32 NumPy arrays: `"input"` and `"reconstruction"`
            `(N, S, S, C)` in [0, 255], and `"mask"` `(N, S, S, 1)`, 1 where the
            input is hidden. The reconstruction keeps the visible patches.

        Raises:
            ValueError: if the shape, dtype or range of the images is wrong.
        """
        images = encoders.checked_images(self.encoder, images)
        if noise is None:
            generator = np.random.default_rng(self.seed)
            noise = generator.uniform(size=(len(images), self.grid**2))
        (name,) = self.augmenter.view_names
        found = predict_on_one_device(
            self, {name: images, "noise": np.asarray(noise, "float32")}
        )
        painted = found["predictions"]
        if self.norm_pix_loss:
            _, mean, std = normalize_patches(found["patches"])
            painted = painted * ops.convert_to_numpy(std)
            painted = painted + ops.convert_to_numpy(mean)
        return self.painted(images, painted, found["mask"])
