"""Context encoder: what was in the hole?"""

import math
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from kerassl import augmentation, encoders, losses
from kerassl.augmentation import masks
from kerassl.choices import check_choice
from kerassl.distributed import (
    DeviceSeedGenerator,
    mean_over_devices,
    predict_on_one_device,
)
from kerassl.image_format import LAST
from kerassl.layers import ChannelwiseDense
from kerassl.methods.base import SelfSupervisedModel

# The authors' color of holes, in [0, 255].
HOLE = {1: (127.5,), 3: (117.0, 104.0, 123.0)}
# The map that DCGAN's last convolution sees.
SMALLEST = 4


@keras.saving.register_keras_serializable(package="kerassl")
class ContextEncoder(SelfSupervisedModel):
    """Context encoder: inpainting.

    A part of the image is hidden under a constant color. The encoder sees the
    rest; from its last feature map a decoder paints what is missing. It learns
    from the squared error, and a little from a discriminator that has to tell
    paintings from images and learns at the same time.

    Both learn from one loss whose parts share no gradient: the discriminator's
    own part sees the painting as a constant, and the painter's part sees the
    discriminator as one. Give the discriminator a tenth of the rate, as the
    authors do: see the example.

    The best features for other tasks are often not the last ones.

    Args:
        encoder: `keras.Model` from square images to features `(N, D)`, with a
            feature map or patches before its pooling: see
            `kerassl.encoders.feature_map`.
        mask: what is hidden: `"center"`, the central half but for `overlap`
            pixels on each side; `"blocks"`, four rectangles; or `"region"`, a
            random shape of 20 to 30 % of the image. With `"center"` the decoder
            paints the central half, else the whole image.
        mask_per_image: bool. A random mask for each image, or one for the
            batch, as the authors' code has it.
        overlap: int > 0, the width in pixels of the band around the hole where
            the image is known and still painted, and an error weighs 10 times
            as much. By default a 32nd of the image's size, as the authors' 4
            of 128 pixels, but at least 1.
        bottleneck_dim: int > 0, the channels between encoder and decoder. Each
            layer of the decoder halves them, to 16 at least.
        discriminator_dim: int > 0, the channels of the discriminator's first
            layer. Each further one doubles them, up to 8 times.
        reconstruction_weight: float >= 0, of the squared error.
        adversarial_weight: float >= 0, of the painter's adversarial loss. With
            0 there is no discriminator.
        seed: int, of the masks.
        augmenter: a `ViewAugmenter` of one view. By default
            `kerassl.augmentation.crop_flip` at the encoder's image size.
        **kwargs: the arguments of `keras.Model`.

    Raises:
        ValueError: if an argument is out of its range, the augmenter makes
            other than one view, or the encoder has no feature map.

    Metrics: `reconstruction_error`, the weighted squared error of pixels in
    [-1, 1]; `relative_error`, the squared error in the hole over that of the
    mean color of the visible pixels: 1 is no better than that color; and
    `discriminator_loss`, 2 ln(2) = 1.386 by chance, 0 if it tells all paintings
    from images.

    Ready-made views: the image's name, and maybe `"mask"` `(N, S, S, 1)`, 1
    where it is hidden; what lies outside of the painted part is not judged.

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
    channel-wise layer and 1x1 convolution instead of a bottleneck without
    places (4000 channels); both players step at once, from the same paintings,
    instead of the discriminator first; the weights of the error are a mean's,
    where the code divides by the number of pixels, which makes its error 3.1
    times as large for a hole of 64 pixels with an overlap of 4.
    Random masks: each image its own; the error counts in the hole and in a band
    around it, as the paper and the authors' central variant have it, where
    their random one has it everywhere and, if at all, 10 times as much on all
    that is *not* hidden, so that it learns to copy; blocks are described in the
    paper alone.

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
        # The rows, and columns, that are painted.
        self.painted = slice(0, size)
        if mask == "center":
            self.painted = masks.central(size)

        # === Layers ===
        channels = self.encoder.input_shape[-1]
        self.feature_map = encoders.feature_map(self.encoder)
        map_shape = self.feature_map.output_shape
        painted_size = self.painted.stop - self.painted.start
        self.bottleneck = self._stack(
            "bottleneck",
            [
                ChannelwiseDense(dtype=self.dtype_policy, name="places"),
                self._conv(layers.Conv2D, bottleneck_dim, 1, "channels"),
                self._norm("norm"),
                layers.LeakyReLU(0.2, dtype=self.dtype_policy, name="relu"),
            ],
            map_shape,
        )
        self.decoder = self._stack(
            "decoder",
            self._decoder_layers(map_shape[1], painted_size, channels),
            (None, *map_shape[1:3], bottleneck_dim),
        )
        self.discriminator = None
        if adversarial_weight:
            self.discriminator = self._stack(
                "discriminator",
                self._discriminator_layers(painted_size),
                (None, painted_size, painted_size, channels),
            )

    def _check(self, mask: str, overlap: int, size: int) -> None:
        check_choice("mask", mask, masks.UNIFORMS)
        if not 0 < overlap < size // 4:
            raise ValueError(
                "`overlap` must be positive, and less than a quarter of the "
                f"image's size {size}. Received: {overlap}"
            )

    # === Layers ===

    def _decoder_layers(self, side: int, painted: int, channels: int) -> list:
        stack: list[keras.layers.Layer] = []
        doublings = max(1, math.ceil(math.log2(painted / side)))
        for i in range(1, doublings):
            width = max(16, self.bottleneck_dim // 2**i)
            stack += [
                self._conv(layers.Conv2DTranspose, width, 4, f"conv_{i}", 2),
                self._norm(f"norm_{i}"),
                layers.ReLU(dtype=self.dtype_policy, name=f"relu_{i}"),
            ]
        last = self._conv(layers.Conv2DTranspose, channels, 4, "conv_output", 2)
        tanh = layers.Activation("tanh", dtype=self.dtype_policy, name="tanh")
        excess = side * 2**doublings - painted
        ends = (excess // 2, excess - excess // 2)
        crop = layers.Cropping2D(
            (ends, ends),
            LAST,
            dtype=self.dtype_policy,
            name="crop",
        )
        return [*stack, last, tanh, crop]

    def _discriminator_layers(self, side: int) -> list:
        stack: list[keras.layers.Layer] = []
        i = 0
        while side > SMALLEST:
            width = self.discriminator_dim * min(2**i, 8)
            i, side = i + 1, math.ceil(side / 2)
            stack.append(self._conv(layers.Conv2D, width, 4, f"conv_{i}", 2))
            if i > 1:
                stack.append(self._norm(f"norm_{i}"))
            relu = layers.LeakyReLU(
                0.2, dtype=self.dtype_policy, name=f"relu_{i}"
            )
            stack.append(relu)
        flatten = layers.Flatten(LAST, dtype=self.dtype_policy, name="flatten")
        # A convolution over the whole map.
        last = layers.Dense(
            1,
            use_bias=False,
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.02),
            dtype=self.dtype_policy,
            name="logit",
        )
        return [*stack, flatten, last]

    def _conv(
        self,
        kind: type,
        width: int,
        kernel: int,
        name: str,
        strides: int = 1,
    ) -> keras.layers.Layer:
        return kind(
            width,
            kernel,
            strides=strides,
            padding="same",
            data_format=LAST,
            use_bias=False,
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.02),
            dtype=self.dtype_policy,
            name=name,
        )

    def _norm(self, name: str) -> keras.layers.Layer:
        return layers.BatchNormalization(
            momentum=0.9,
            epsilon=1e-5,
            gamma_initializer=keras.initializers.RandomNormal(1.0, 0.02),
            dtype=self.dtype_policy,
            name=name,
        )

    def _stack(self, name: str, stack: list, shape: tuple) -> keras.Sequential:
        model = keras.Sequential(stack, name=name)
        model.build(shape)
        return model

    # === The method ===

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
        """Hides a part of each image, and paints it."""
        (images,) = (
            ops.cast(views[name], "float32")
            for name in self.augmenter.view_names
        )
        mask = ops.cast(views["mask"], "float32")
        seen = 1.0 - mask
        hole = ops.convert_to_tensor(HOLE[images.shape[-1]], "float32")
        maps = self.feature_map(images * seen + hole * mask, training=training)
        painted = self.decoder(
            self.bottleneck(maps, training=training), training=training
        )
        painted = ops.cast(painted, "float32")
        pixels = images / 127.5 - 1.0
        colors = ops.sum(pixels * seen, axis=(1, 2), keepdims=True)
        colors = colors / ops.maximum(
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
            outputs |= self._judged(painted, target, training)
        return outputs

    def _judged(self, painted: Any, target: Any, training: bool) -> dict:
        """Returns the discriminator's logits, for its own loss and for ours."""
        judge: Any = self.discriminator
        # One read for all three: TensorFlow lets an update wait only for the
        # reads that its gradient came from (Grappler drops the others), and a
        # second read for the painter may see what the update left.
        weights = [ops.copy(w) for w in judge.trainable_variables]
        frozen = [ops.stop_gradient(w) for w in weights]
        state = [w.value for w in judge.non_trainable_variables]
        logits = {}
        logits["real"], state = judge.stateless_call(
            weights, state, target, training=training
        )
        logits["fake"], state = judge.stateless_call(
            weights, state, ops.stop_gradient(painted), training=training
        )
        # The same once more, with a gradient to the painting alone. The moving
        # statistics have seen it already.
        logits["adversarial"], _ = judge.stateless_call(
            frozen, state, painted, training=training
        )
        if training:
            for variable, value in zip(judge.non_trainable_variables, state):
                variable.assign(value)
        return logits

    def _painted(self, images: Any) -> Any:
        return images[:, self.painted, self.painted]

    def objective(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """Adds up the painter's two losses and the discriminator's."""
        painted, target = outputs["painted"], outputs["target"]
        weights = outputs["weights"]
        error = losses.inpainting(painted, target, weights)["loss"]
        # Holes differ in size: the mean is over the pixels of all devices.
        hidden = ops.mean(weights)
        error = error * hidden / ops.maximum(mean_over_devices(hidden), 1e-6)
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

    # === What a user calls ===

    def reconstruct(
        self, images: Any, mask: Any = None
    ) -> dict[str, np.ndarray]:
        """Paints holes into images, for pictures.

        Args:
            images: array `(N, S, S, C)` of the encoder's size, uint8 or float
                in [0, 255].
            mask: array `(N, S, S, 1)`, 1 is hidden. By default masks as in
                training, and the same at each call.

        Returns:
            A dict of float32 NumPy arrays: `"input"` and `"reconstruction"`
            `(N, S, S, C)` in [0, 255], the latter with the input's visible
            pixels, and `"mask"` `(N, S, S, 1)`, 1 where the input is hidden.

        Raises:
            ValueError: if the images have another shape, type or range.
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
        hole = np.array(HOLE[shape[-1]], "float32")
        seen = images * (1.0 - mask)
        return {
            "input": seen + hole * mask,
            "mask": mask,
            "reconstruction": seen + painting * mask,
        }

    def get_config(self) -> dict:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "mask": self.mask,
            "mask_per_image": self.mask_per_image,
            "overlap": self.overlap,
            "bottleneck_dim": self.bottleneck_dim,
            "discriminator_dim": self.discriminator_dim,
            "reconstruction_weight": self.reconstruction_weight,
            "adversarial_weight": self.adversarial_weight,
            "seed": self.seed,
        }


def _cross_entropy(logits: Any, target: float) -> Any:
    logits = ops.cast(logits, "float32")
    return ops.mean(
        keras.losses.binary_crossentropy(
            ops.full_like(logits, target), logits, from_logits=True
        )
    )
