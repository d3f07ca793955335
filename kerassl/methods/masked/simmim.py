"""SimMIM: predict hidden patches by one dense layer, from mask tokens."""

import functools
import math
from typing import Any

import keras
import numpy as np
from keras import ops

from kerassl import augmentation, encoders
from kerassl.augmentation import patch_masks
from kerassl.distributed import (
    DeviceSeedGenerator,
    mean_over_devices,
    predict_on_one_device,
)
from kerassl.layers import MaskedTokens
from kerassl.layers.patches import patchify
from kerassl.losses import masked_reconstruction, visible_color
from kerassl.losses.numbers import at_least
from kerassl.methods.masked.vit import MaskedViT, check_hidden


@keras.saving.register_keras_serializable(package="kerassl")
class SimMIM(MaskedViT):
    """A simple framework for masked image modeling.

    Random squares of an image are hidden: the encoder, a ViT, sees a learned
    mask token in the place of each of their patches. One dense layer maps each
    of its output tokens to the pixels of the patch, and the error of the hidden
    ones is the loss. So the encoder does the whole work, on all tokens, where
    `MAE`'s sees only the visible ones and leaves the rest to a decoder.

    Its class token isn't trained: take encoders whose features are the mean of
    the patches' (`pooling="mean"`), as the authors do for fine-tuning.

    Args:
        encoder: `keras.Model` that contains a `keras_hub.models.ViTBackbone`,
            such as `kerassl.encoders.build("vit_small", ..., pooling="mean")`,
            or such a backbone. It needs square images and a class token. Its
            position embeddings are set to fixed sines and cosines, unless they
            have learned.
        mask_ratio: float in (0, 1), the fraction of squares to hide.
        mask_size: int > 0, the side of a square in patches. If it doesn't
            divide the number of patches in a row, the last squares are cut.
        seed: int, of the masks.
        augmenter: a `ViewAugmenter` of one view. By default
            `kerassl.augmentation.crop_flip` at the encoder's image size, with
            crops of 0.67 to 1 of the area.
        **kwargs: the arguments of `keras.Model`.

    Raises:
        ValueError: if the encoder contains no such ViT, or an argument is out
            of range.

    Warns:
        UserWarning: if the encoder's feature is the class token.

    Metrics: `relative_error`, the absolute error on hidden patches relative to
    that of the mean color of the visible ones: 0 is perfect, 1 is no better
    than the color.

    Ready-made views: the images, and optionally `"mask"`, float `(N, L)` for L
    patches: 1 is hidden.

    Example:
    ```python
    encoder = kerassl.encoders.build(
        "vit_small", (224, 224, 3), pooling="mean"
    )
    model = kerassl.SimMIM(encoder)
    rate = kerassl.optimizers.warmup_cosine(5e-5, total_steps=100_000)
    model.compile(kerassl.optimizers.AdamW(rate, weight_decay=0.05))
    model.fit(images, batch_size=256, epochs=100)
    pictures = model.reconstruct(images[:8])
    ```

    Deviations from microsoft/SimMIM: KerasHub's ViT has positions instead of
    relative position biases, and neither LayerScale nor stochastic depth (0.1
    in the code); the mask token starts at 0. kerassl's ViTs start with
    Xavier's bound, the code's with truncated normals of a standard deviation of
    0.02, and the output kernels of its block l are divided by sqrt(2l). Views
    are resized with a bicubic filter, the code's with a bilinear one.

    Reference:
        - [Xie et al., 2021](https://arxiv.org/abs/2111.09886)
    """

    metric_names = ("relative_error",)
    drawn_names = ("mask",)
    pooling = "mean"
    default_views = staticmethod(
        functools.partial(augmentation.crop_flip, crop_area=(0.67, 1.0))
    )

    def __init__(
        self,
        encoder: Any,
        mask_ratio: float = 0.6,
        mask_size: int = 2,
        seed: int = 0,
        augmenter: keras.layers.Layer | None = None,
        **kwargs: Any,
    ):
        super().__init__(encoder, augmenter, **kwargs)
        if mask_size < 1:
            raise ValueError(
                f"`mask_size` must be positive. Received: {mask_size}"
            )
        self.squares = math.ceil(self.grid / mask_size) ** 2
        self.hidden_squares = math.ceil(self.squares * mask_ratio)
        check_hidden(
            mask_ratio,
            self.hidden_squares,
            self.squares,
            f"squares of {mask_size} patches",
        )
        self.mask_ratio = mask_ratio
        self.mask_size = mask_size
        self.seed = seed
        self.seed_generator = DeviceSeedGenerator(seed)
        self.masked_embedding = MaskedTokens(self.embedding)
        self.painter = keras.layers.Dense(
            self.patch_size**2 * self.backbone.image_shape[-1],
            dtype=self.dtype_policy,
            name="painter",
        )
        self.painter.build((None, None, self.backbone.hidden_dim))

    def draw(self, count: Any) -> dict[str, Any]:
        """Draws which squares of each image are hidden."""
        noise = keras.random.uniform(
            (count, self.squares), seed=self.seed_generator
        )
        return {"mask": self._hide(noise)}

    def _hide(self, noise: Any) -> Any:
        return patch_masks.square_masks(
            noise, self.hidden_squares, self.mask_size, self.grid
        )

    def forward_views(
        self, views: dict[str, Any], training: bool = False
    ) -> dict[str, Any]:
        """Encodes images with hidden patches, and predicts all patches."""
        pixels = self.pixels(views, training)
        mask = ops.cast(views["mask"], "float32")
        tokens = self.masked_embedding(pixels, mask, training=training)
        tokens = self.blocks(tokens, training=training)
        predictions = self.painter(tokens[:, 1:])
        return {
            "predictions": ops.cast(predictions, "float32"),
            "patches": patchify(ops.cast(pixels, "float32"), self.patch_size),
            "mask": mask,
        }

    def objective(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """Compares predictions with the hidden patches."""
        patches, mask = outputs["patches"], outputs["mask"]
        color = visible_color(patches, mask, self.backbone.image_shape[-1])
        loss, worst = (
            masked_reconstruction(guess, patches, mask, absolute=True)["loss"]
            for guess in (outputs["predictions"], color)
        )
        # Images differ in it where squares are cut, so take the mean over the
        # hidden patches of all devices.
        hidden = ops.mean(mask)
        share = hidden / at_least(mean_over_devices(hidden), 1e-6)
        return {
            "loss": share * loss,
            "relative_error": loss / at_least(worst, 1e-6),
        }

    def reconstruct(self, images: Any, mask: Any = None) -> dict[str, Any]:
        """Hides patches of images and predicts them, for pictures.

        Args:
            images: array `(N, S, S, C)` of the encoder's size, uint8 or float
                in [0, 255].
            mask: array `(N, L)`, 1 for hidden patches. By default random, but
                the same in each call.

        Returns:
            A dict of float32 NumPy arrays: `"input"` and `"reconstruction"`
            `(N, S, S, C)` in [0, 255], and `"mask"` `(N, S, S, 1)`, 1 where the
            input is hidden. The reconstruction keeps the visible patches.

        Raises:
            ValueError: if the shape, dtype or range of the images is wrong.
        """
        images = encoders.checked_images(self.encoder, images)
        if mask is None:
            noise = np.random.default_rng(self.seed).uniform(
                size=(len(images), self.squares)
            )
            mask = self._hide(ops.convert_to_tensor(noise.astype("float32")))
            mask = ops.convert_to_numpy(mask)
        (name,) = self.augmenter.view_names
        found = predict_on_one_device(
            self, {name: images, "mask": np.asarray(mask, "float32")}
        )
        return self.painted(images, found["predictions"], found["mask"])
