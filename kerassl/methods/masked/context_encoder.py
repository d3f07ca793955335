"""Context encoder: paint what is missing."""

from typing import Any

import keras
import numpy as np
from keras import ops

from kerassl import augmentation, encoders, losses
from kerassl.augmentation import masks
from kerassl.augmentation.namespace import array
from kerassl.choices import check_choice
from kerassl.distributed import (
    DeviceSeedGenerator,
    mean_over_devices,
    predict_on_one_device,
)
from kerassl.layers import inpainting
from kerassl.losses.numbers import at_least
from kerassl.methods.base import SelfSupervisedModel

# The authors' color of holes in RGB images, in [0, 255]. Others have gray ones.
HOLE = (117.0, 104.0, 123.0)


@keras.saving.register_keras_serializable(package="kerassl")
class ContextEncoder(SelfSupervisedModel):
    """Context encoder: inpainting.

    Part of the image is hidden under a constant color. The encoder sees the
    rest, and a decoder paints the missing part from its last feature map. The
    loss is the squared error, with a small share from a discriminator, which
    learns at the same time to tell paintings from images.

    Painter and discriminator share one loss, but no gradient: the
    discriminator's term treats the painting as a constant, and the adversarial
    term treats the discriminator as one. Give the discriminator a tenth of the
    learning rate, as the authors do: see the example.

    The features that transfer best are often not those of the last layer: see
    `kerassl.encoders.stages`.

    Args:
        encoder: `keras.Model` from square images to features `(N, D)` that
            pools a feature map or patch tokens at its end: see
            `kerassl.encoders.feature_map`.
        mask: the hidden part: `"center"`, the central half without a margin of
            `overlap` pixels on each side; `"blocks"`, four rectangles; or
            `"region"`, a random shape of 20 to 30 % of the image. With
            `"center"` the decoder paints the central half, otherwise the whole
            image.
        mask_per_image: bool. Draw a random mask for each image, or one for the
            batch, as the authors' code does.
        overlap: int > 0, the width in pixels of the band around the hole that
            is visible, but painted too, with 10 times the weight in the error.
            By default a 32nd of the image size, like the authors' 4 of 128
            pixels, but at least 1.
        bottleneck_dim: int > 0, the channels between encoder and decoder. Each
            layer of the decoder halves them, down to 16.
        discriminator_dim: int > 0, the channels of the discriminator's first
            layer. Each further layer doubles them, up to 8 times.
        reconstruction_weight: float >= 0, of the squared error.
        adversarial_weight: float >= 0, of the painter's adversarial loss. With
            0 there is no discriminator.
        seed: int, of the masks.
        augmenter: a `ViewAugmenter` of one view. By default
            `kerassl.augmentation.crop_flip` at the encoder's image size.
        **kwargs: the arguments of `keras.Model`.

    Raises:
        ValueError: if an argument is out of range, the augmenter doesn't make
            exactly one view, or the encoder has no feature map.

    Metrics: `reconstruction_error`, the weighted squared error of pixels in
    [-1, 1]; `relative_error`, the squared error in the hole relative to that of
    the mean color of the visible pixels: 1 is no better than that color; and
    `discriminator_loss`: 2 ln(2) = 1.386 is chance, 0 is perfect.

    Ready-made views: the images, and optionally `"mask"` `(N, S, S, 1)`, 1
    where they are hidden. With `"center"`, the mask counts only inside the
    painted half.

    Example:
    ```python
    encoder = kerassl.encoders.build("resnet_18_small", (32, 32, 3))
    model = kerassl.ContextEncoder(encoder, mask="region")
    adam = keras.optimizers.Adam(2e-3, beta_1=0.5)
    model.compile(
        kerassl.optimizers.with_learning_rates(adam, {"discriminator": 2e-4})
    )
    model.fit(images, batch_size=64, epochs=100)
    pictures = model.reconstruct(images[:8])["reconstruction"]
    ```

    Deviations from pathak22/context-encoder: any encoder, with the paper's
    channel-wise layer and a 1x1 convolution in place of a bottleneck of 4000
    channels without positions; painter and discriminator step at the same time,
    on the same paintings, where the authors update the discriminator first; the
    error is a weighted mean, where the code divides by the number of pixels,
    which makes its error 3.1 times as large for a hole of 64 pixels with an
    overlap of 4. The default view is a random crop of 0.2 to 1 of the area and
    a ratio of 3/4 to 4/3, where the code crops 128 of 350 pixels.
    With random masks: each image has its own; the error counts in the hole and
    in a band around it, as in the paper and in the authors' central variant.
    Their random variant counts it everywhere and, optionally, 10 times as much
    on what is *not* hidden, so it learns to copy. Blocks are described only in
    the paper.

    Reference:
        - [Pathak et al., 2016](https://arxiv.org/abs/1604.07379)
    """

    metric_names: tuple[str, ...] = (
        "reconstruction_error",
        "relative_error",
        "discriminator_loss",
    )
    drawn_names = ("mask",)
    num_views = 1
    one_size = True
    default_views = staticmethod(augmentation.crop_flip)

    def __init__(
        self,
        encoder: Any,
        mask: str = "center",
        mask_per_image: bool = True,
        overlap: int | None = None,
        bottleneck_dim: int = 512,
        discriminator_dim: int = 64,
        reconstruction_weight: float = 0.999,
        adversarial_weight: float = 0.001,
        seed: int = 0,
        augmenter: keras.layers.Layer | None = None,
        **kwargs: Any,
    ):
        if not adversarial_weight:
            self.metric_names = self.metric_names[:2]
        super().__init__(encoder, augmenter, **kwargs)
        size = encoders.image_size(self.encoder)
        overlap = max(1, size // 32) if overlap is None else overlap
        self._check(mask, overlap, size)
        for name, value, least in (
            ("bottleneck_dim", bottleneck_dim, 1),
            ("discriminator_dim", discriminator_dim, 1),
            ("reconstruction_weight", reconstruction_weight, 0),
            ("adversarial_weight", adversarial_weight, 0),
        ):
            if value < least:
                raise ValueError(
                    f"`{name}` must be at least {least}. Received: {value}"
                )
        self.mask = mask
        self.mask_per_image = mask_per_image
        self.overlap = overlap
        self.bottleneck_dim = bottleneck_dim
        self.discriminator_dim = discriminator_dim
        self.reconstruction_weight = reconstruction_weight
        self.adversarial_weight = adversarial_weight
        self.seed = seed
        self.seed_generator = DeviceSeedGenerator(seed)
        self.image_size = size
        # The rows (and columns) to paint.
        self.painted = slice(0, size)
        if mask == "center":
            self.painted = masks.central(size)

        # === Layers ===
        channels, dtype = self.encoder.input_shape[-1], self.dtype_policy
        painted_size = self.painted.stop - self.painted.start
        self.feature_map = encoders.feature_map(self.encoder)
        map_shape = self.feature_map.output_shape
        self.bottleneck = inpainting.bottleneck(
            map_shape, bottleneck_dim, dtype
        )
        self.decoder = inpainting.decoder(
            self.bottleneck.output_shape, painted_size, channels, dtype
        )
        self.discriminator = None
        if adversarial_weight:
            self.discriminator = inpainting.discriminator(
                painted_size, channels, discriminator_dim, dtype
            )

    def _check(self, mask: str, overlap: int, size: int) -> None:
        check_choice("mask", mask, masks.UNIFORMS)
        if not 0 < overlap < size // 4:
            raise ValueError(
                "`overlap` must be positive, and less than a quarter of the "
                f"image size {size}. Received: {overlap}"
            )

    def draw(self, count: Any) -> dict[str, Any]:
        """Draws a mask for each image, or one for all."""
        return {"mask": self._draw(count, self.seed_generator)}

    def _draw(self, count: Any, seed: Any) -> Any:
        uniforms = keras.random.uniform(
            (count, masks.UNIFORMS[self.mask]), dtype="float32", seed=seed
        )
        if not self.mask_per_image:
            uniforms = ops.zeros_like(uniforms) + uniforms[:1]
        return masks.make_masks(
            self.mask, uniforms, self.image_size, self.overlap
        )

    def forward_views(
        self, views: dict[str, Any], training: bool = False
    ) -> dict[str, Any]:
        """Hides part of each image, and paints it."""
        (images,) = (
            ops.cast(views[name], "float32")
            for name in self.augmenter.view_names
        )
        mask = ops.cast(views["mask"], "float32")
        seen = 1.0 - mask
        hole = array(ops, _hole(images.shape[-1]), images)
        maps = self.feature_map(images * seen + hole * mask, training=training)
        painted = self.decoder(
            self.bottleneck(maps, training=training), training=training
        )
        painted = ops.cast(painted, "float32")
        pixels = images / 127.5 - 1.0
        colors = ops.sum(pixels * seen, axis=(1, 2), keepdims=True)
        colors = colors / at_least(
            ops.sum(seen, axis=(1, 2), keepdims=True), 1.0
        )
        weights = masks.hole_weights(mask, self.overlap)
        target = self._painted(pixels)
        outputs = {
            "painted": painted,
            "target": target,
            "mask": self._painted(mask),
            "weights": self._painted(weights),
            "colors": colors,
        }
        if self.discriminator is not None:
            outputs |= inpainting.discriminate(
                self.discriminator, target, painted, training
            )
        return outputs

    def _painted(self, images: Any) -> Any:
        return images[:, self.painted, self.painted]

    def objective(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """Adds the two losses of the painter and that of the discriminator."""
        painted, target = outputs["painted"], outputs["target"]
        weights = outputs["weights"]
        error = losses.inpainting(painted, target, weights)["loss"]
        # Holes differ in size, so take the mean over pixels of all devices.
        hidden = ops.mean(weights)
        error = error * hidden / at_least(mean_over_devices(hidden), 1e-6)
        scalars = {
            "loss": self.reconstruction_weight * error,
            "reconstruction_error": error,
            "relative_error": losses.relative_error(
                painted, target, outputs["mask"], outputs["colors"]
            ),
        }
        if self.discriminator is not None:
            own = _cross_entropy(outputs["real"], 1.0)
            own = own + _cross_entropy(outputs["fake"], 0.0)
            adversarial = _cross_entropy(outputs["adversarial"], 1.0)
            scalars["loss"] += self.adversarial_weight * adversarial + own
            scalars["discriminator_loss"] = own
        return scalars

    def reconstruct(
        self, images: Any, mask: Any = None
    ) -> dict[str, np.ndarray]:
        """Paints holes into images, for pictures.

        Args:
            images: array `(N, S, S, C)` of the encoder's size, uint8 or float
                in [0, 255].
            mask: array `(N, S, S, 1)`, 1 is hidden. By default masks as in
                training, but the same in each call.

        Returns:
            A dict of float32 NumPy arrays: `"input"` and `"reconstruction"`
            `(N, S, S, C)` in [0, 255], and `"mask"` `(N, S, S, 1)`, 1 where the
            input is hidden. The reconstruction keeps the visible pixels.

        Raises:
            ValueError: if the shape, dtype or range of the images is wrong.
        """
        images = encoders.checked_images(self.encoder, images)
        shape = images.shape[1:]
        if mask is None:
            mask = ops.convert_to_numpy(self._draw(len(images), self.seed))
        mask = np.asarray(mask, "float32")
        (name,) = self.augmenter.view_names
        views = {name: images, "mask": mask}
        painting = images.copy()
        self._painted(painting)[:] = 127.5 * (
            predict_on_one_device(self, views)["painted"] + 1.0
        )
        hole = np.array(_hole(shape[-1]), "float32")
        seen = images * (1.0 - mask)
        return {
            "input": seen + hole * mask,
            "mask": mask,
            "reconstruction": seen + painting * mask,
        }


def _cross_entropy(logits: Any, target: float) -> Any:
    """Returns that of logits with one target, 0 or 1."""
    # PyTorch's compiler can't trace Keras's own.
    logits = ops.cast(logits, "float32")
    return ops.mean(ops.softplus(logits) - target * logits)


def _hole(channels: int) -> tuple[float, ...]:
    return HOLE if channels == 3 else (127.5,) * channels
