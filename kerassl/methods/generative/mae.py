"""MAE: paint in the patches that the encoder didn't see."""

from typing import Any

import keras
import numpy as np
from keras import ops

from kerassl import augmentation, encoders
from kerassl.distributed import DeviceSeedGenerator, predict_on_one_device
from kerassl.encoders.graph import ViT, find_vit_backbone, part_before
from kerassl.encoders.kerashub import linear_xavier
from kerassl.losses import (
    masked_reconstruction,
    normalize_patches,
    visible_color,
)
from kerassl.methods.base import SelfSupervisedModel


@keras.saving.register_keras_serializable(package="kerassl")
class MAE(SelfSupervisedModel):
    """Masked autoencoder.

    Most patches of an image, 75 % at random, are hidden. The encoder, a ViT,
    works on the visible ones and its class token alone, which makes its step
    several times cheaper. A small decoder gets the encoded patches, and a mask
    token in place of each hidden one, and has to paint in the hidden pixels.

    The encoder stays KerasHub's: `model.encoder.get_layer("backbone")` can be
    saved with `save_to_preset`, and loads without kerassl. MAE only gives its
    positions other values, fixed sines and cosines (`sine_positions`).

    Args:
        encoder: `keras.Model` with a `keras_hub.models.ViTBackbone` in it, such
            as `kerassl.encoders.build("vit_small", ...)`, or such a backbone;
            for square images, with a class token.
        mask_ratio: float in (0, 1), the share of patches that are hidden.
        decoder_dim: int, a multiple of 4 and of `decoder_heads`. The decoder's
            width.
        decoder_depth: int > 0. The decoder's blocks.
        decoder_heads: int > 0. The decoder's attention heads.
        norm_pix_loss: bool. Targets are the pixels normalized by their patch's
            mean and standard deviation, which makes better features; or the
            pixels as the ViT takes them.
        seed: int, of the masks.
        augmenter: a `ViewAugmenter` of one view. By default
            `kerassl.augmentation.crop_flip` at the encoder's image size.
        **kwargs: the arguments of `keras.Model`.

    Raises:
        ValueError: if the encoder has no such ViT, or an argument is out of
            its range.

    Metrics: `relative_error`, the squared error on hidden patches over that of
    one color: 1 if the decoder does no better, 0 if it is perfect. With
    `norm_pix_loss` that color is each hidden patch's own mean, and the metric
    close to the loss: what is left to guess is the pattern within a patch.
    Without, it is the mean color of the image's visible patches.

    Ready-made views: the images, and maybe `"noise"` `(N, L)` for L patches:
    those with the smallest numbers stay visible.

    Example:
    ```python
    encoder = kerassl.encoders.build("vit_small", (224, 224, 3))
    model = kerassl.MAE(encoder)
    rate = kerassl.optimizers.warmup_cosine(1.5e-4, total_steps=100_000)
    model.compile(kerassl.optimizers.AdamW(rate, beta_2=0.95))
    model.fit(images, batch_size=256, epochs=800)
    pictures = model.reconstruct(images[:8])
    ```

    Deviations from facebookresearch/mae, of KerasHub's ViT: its biases start
    with small offsets, its queries, keys and values as three kernels with
    Xavier's bound each instead of one with a smaller bound, and its class token
    with a standard deviation of .05 instead of .02.

    Reference:
        - [He et al., 2021](https://arxiv.org/abs/2111.06377)
    """

    metric_names = ("relative_error",)
    drawn_names = ("noise",)
    num_views = 1
    min_batch = 1
    default_views = staticmethod(augmentation.crop_flip)

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
        vit = vit_to_mask(self.encoder)
        self.backbone = vit.backbone
        self.preprocessor = part_before(self.encoder, vit.backbone)
        self.embedding, self.blocks = vit.embedding, vit.encoder
        self.patch_size = self.backbone.patch_size[0]
        self.grid, _ = vit.grid
        patches = self.grid**2
        self.visible = int(patches * (1 - mask_ratio))
        if not 0 < self.visible < patches:
            raise ValueError(
                "`mask_ratio` must hide some of the patches and leave others. "
                f"There are {patches}. Received: {mask_ratio}"
            )
        if min(decoder_depth, decoder_heads) < 1 or decoder_dim % decoder_heads:
            raise ValueError(
                "`decoder_depth` and `decoder_heads` must be positive, and "
                "`decoder_dim` a multiple of the heads. Received: "
                f"decoder_dim={decoder_dim}, decoder_depth={decoder_depth}, "
                f"decoder_heads={decoder_heads}"
            )
        self._fix_positions()
        self._make_decoder()

    def _fix_positions(self) -> None:
        table = self.embedding.position_embedding.embeddings
        table.assign(sine_positions(self.grid, table.shape[-1]))
        # The variable, not the layer: the encoder stays trainable as a whole.
        table.trainable = False

    def _make_decoder(self) -> None:
        import keras_hub

        width, policy = self.decoder_dim, self.dtype_policy
        self.decoder_positions = sine_positions(self.grid, width)[None]
        self.mask_token = self.add_weight(
            name="mask_token",
            shape=(1, 1, width),
            initializer=keras.initializers.RandomNormal(stddev=0.02),
        )
        self.decoder_embedding = keras.layers.Dense(
            width, dtype=policy, name="decoder_embedding"
        )
        self.decoder_embedding.build((None, None, self.backbone.hidden_dim))
        self.decoder = [
            keras_hub.layers.TransformerEncoder(
                4 * width,
                self.decoder_heads,
                activation="gelu",
                layer_norm_epsilon=1e-6,
                normalize_first=True,
                dtype=policy,
                name=f"decoder_block_{i + 1}",
            )
            for i in range(self.decoder_depth)
        ]
        for block in self.decoder:
            block.build((None, self.grid**2 + 1, width))
            linear_xavier(block)
        self.decoder_norm = keras.layers.LayerNormalization(
            epsilon=1e-6, dtype=policy, name="decoder_norm"
        )
        self.decoder_norm.build((None, None, width))
        self.painter = keras.layers.Dense(
            self.patch_size**2 * self.backbone.image_shape[-1],
            dtype=policy,
            name="painter",
        )
        self.painter.build((None, None, width))

    def make_train_function(self, force: bool = False) -> Any:
        """Makes the step, as the base class does.

        The positions stay fixed, also where the encoder was frozen and thawed.
        """
        self.embedding.position_embedding.embeddings.trainable = False
        return super().make_train_function(force)

    def draw(self, count: Any) -> dict[str, Any]:
        """Draws a number for each patch; the smallest ones stay visible."""
        return {
            "noise": keras.random.uniform(
                (count, self.grid**2), seed=self.seed_generator
            )
        }

    def forward_views(
        self, views: dict[str, Any], training: bool = False
    ) -> dict[str, Any]:
        """Encodes the visible patches, and paints in all."""
        (images,) = (views[name] for name in self.augmenter.view_names)
        pixels = self.preprocessor(images, training=training)
        # The patches in the order of their numbers; and each one's place in it.
        order = ops.argsort(views["noise"], axis=1)
        place = ops.argsort(order, axis=1)
        tokens = self.encode(pixels, order[:, : self.visible], training)
        return {
            "predictions": self.decode(tokens, place, training),
            "patches": patchify(ops.cast(pixels, "float32"), self.patch_size),
            "mask": ops.cast(place >= self.visible, "float32"),
        }

    def encode(self, pixels: Any, chosen: Any, training: bool = False) -> Any:
        """Encodes some patches of each image.

        Args:
            pixels: tensor `(N, S, S, C)`, as the ViT takes them.
            chosen: whole numbers `(N, K)`, the patches to see.
            training: bool.

        Returns:
            A tensor `(N, 1 + K, D)`, with the class token's first.
        """
        tokens = self.embedding(pixels, training=training)
        visible = ops.take_along_axis(tokens[:, 1:], chosen[..., None], axis=1)
        tokens = ops.concatenate([tokens[:, :1], visible], axis=1)
        return self.blocks(tokens, training=training)

    def decode(self, tokens: Any, place: Any, training: bool = False) -> Any:
        """Paints in all patches.

        Args:
            tokens: tensor `(N, 1 + K, D)`, what `encode` returns.
            place: whole numbers `(N, L)`, each patch's place among the encoded
                ones; from K on it is hidden.
            training: bool.

        Returns:
            A float32 tensor `(N, L, P)` of pixels, or of normalized ones.
        """
        x = self.decoder_embedding(tokens)
        hidden = self.grid**2 - self.visible
        masks = ops.cast(self.mask_token, x.dtype) + ops.zeros_like(x[:, :1])
        masks = ops.tile(masks, (1, hidden, 1))
        patches = ops.concatenate([x[:, 1:], masks], axis=1)
        patches = ops.take_along_axis(patches, place[..., None], axis=1)
        x = ops.concatenate([x[:, :1], patches], axis=1)
        x = x + ops.cast(self.decoder_positions, x.dtype)
        for block in self.decoder:
            x = block(x, training=training)
        x = self.painter(self.decoder_norm(x))
        return ops.cast(x[:, 1:], "float32")

    def objective(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """Compares the painted patches with the hidden ones."""
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
            "relative_error": loss / ops.maximum(worst, 1e-6),
        }

    def reconstruct(self, images: Any, noise: Any = None) -> dict[str, Any]:
        """Hides patches of images and paints them in, for pictures.

        With `norm_pix_loss` a painted patch gets the mean and the standard
        deviation of the true one, as in the paper's pictures: the model doesn't
        guess these.

        Args:
            images: array `(N, S, S, C)` of the encoder's size, uint8 or float
                in [0, 255].
            noise: array `(N, L)`: the patches with the smallest numbers stay
                visible. By default random, and the same at each call.

        Returns:
            A dict of float32 NumPy arrays: `"input"` and `"reconstruction"`
            `(N, S, S, C)` in [0, 255], the latter with the input's visible
            patches, and `"mask"` `(N, S, S, 1)`, 1 where the input is hidden.

        Raises:
            ValueError: if the images have another shape, type or range.
        """
        images = encoders.checked_images(self.encoder, images)
        shape = images.shape[1:]
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
        mask = unpatchify(found["mask"][..., None], self.patch_size, 1)
        # What the preprocessing makes of black and white says how to undo it.
        ends = np.stack([np.zeros(shape, "float32"), np.full(shape, 255.0)])
        black, white = ops.convert_to_numpy(
            ops.cast(self.preprocessor(ends), "float32")
        )
        painted = unpatchify(painted, self.patch_size, shape[-1])
        painted = np.clip(255 * (painted - black) / (white - black), 0, 255)
        return {
            "input": images,
            "mask": mask,
            "reconstruction": np.where(mask > 0, painted, images),
        }

    def get_config(self) -> dict:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "mask_ratio": self.mask_ratio,
            "decoder_dim": self.decoder_dim,
            "decoder_depth": self.decoder_depth,
            "decoder_heads": self.decoder_heads,
            "norm_pix_loss": self.norm_pix_loss,
            "seed": self.seed,
        }


def vit_to_mask(encoder: keras.Model) -> ViT:
    """Returns the ViT in an encoder.

    Raises:
        ValueError: if there is none, or not one that MAE can mask.
    """
    vit = find_vit_backbone(encoder)
    if vit is None:
        raise ValueError(
            "MAE masks the patches of a `keras_hub.models.ViTBackbone`, and "
            f"the encoder {encoder.name!r} has none. Take such a backbone, or "
            "`kerassl.encoders.build` with a ViT's name."
        )
    backbone = vit.backbone
    if not backbone.use_class_token:
        raise ValueError(
            "MAE's features are the class token, and the encoder has none. "
            "Build the backbone with `use_class_token=True`."
        )
    height, width, _ = backbone.image_shape
    if height != width or len(set(backbone.patch_size)) != 1:
        raise ValueError(
            "MAE needs square images and square patches. Build the backbone "
            f"so. Received: image_shape={backbone.image_shape}, "
            f"patch_size={backbone.patch_size}"
        )
    if tuple(backbone.image_shape) != encoder.input_shape[1:]:
        raise ValueError(
            f"The encoder takes images of shape {encoder.input_shape[1:]}, and "
            f"its backbone {backbone.image_shape}. Let the encoder leave their "
            "shape, and give the augmenter the size instead."
        )
    return vit


def patchify(images: Any, size: int) -> Any:
    """Cuts square images into patches.

    Args:
        images: tensor `(N, S, S, C)`.
        size: int, a patch's height and width, a divisor of S.

    Returns:
        A tensor `(N, L, size * size * C)`: patches row by row, and within each
        its rows, columns and channels, in that order.
    """
    grid, channels = images.shape[1] // size, images.shape[-1]
    x = ops.reshape(images, (-1, grid, size, grid, size, channels))
    x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
    return ops.reshape(x, (-1, grid * grid, size * size * channels))


def unpatchify(patches: np.ndarray, size: int, channels: int) -> np.ndarray:
    """Puts patches together: the reverse of `patchify`, in NumPy.

    Args:
        patches: array `(N, L, size * size * channels)`, or `(N, L, channels)`
            for patches of one color.
        size: int, a patch's height and width.
        channels: int.

    Returns:
        An array `(N, S, S, channels)`.
    """
    count, length, width = patches.shape
    grid, inner = round(length**0.5), size if width > channels else 1
    x = patches.reshape(count, grid, grid, inner, inner, channels)
    x = np.broadcast_to(x, (count, grid, grid, size, size, channels))
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(
        count, grid * size, grid * size, channels
    )


def sine_positions(grid: int, width: int) -> np.ndarray:
    """Returns the fixed positions of a square of patches and a class token.

    The first half of a row is the sines and cosines of the patch's column, the
    second half those of its row, at frequencies from 1 to 1/10000.

    Args:
        grid: int, the patches in a row.
        width: int, a multiple of 4.

    Returns:
        A float32 array `(1 + grid * grid, width)`. Its first row, the class
        token's, is 0.

    Raises:
        ValueError: if the width is not a multiple of 4.
    """
    if width % 4:
        raise ValueError(
            "The widths of MAE's encoder and decoder must be multiples of 4, "
            f"for their positions. Received: {width}"
        )
    quarter = width // 4
    frequencies = 10000.0 ** (-np.arange(quarter) / quarter)
    angles = np.outer(np.arange(grid), frequencies)
    line = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    places = [np.tile(line, (grid, 1)), np.repeat(line, grid, axis=0)]
    table = np.concatenate(places, axis=1)
    return np.concatenate([np.zeros((1, width)), table]).astype("float32")
