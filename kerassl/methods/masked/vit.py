"""What methods share that hide patches of an image from a ViT."""

import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kerassl import augmentation
from kerassl.encoders.graph import ViT, find_vit_backbone, part_before
from kerassl.encoders.kerashub import linear_xavier
from kerassl.encoders.sizes import takes_the_first
from kerassl.image_format import flat_layers
from kerassl.layers.patches import sine_positions, unpatchify
from kerassl.methods.base import SelfSupervisedModel


class MaskedViT(SelfSupervisedModel):
    """The base of methods that hide patches of an image from a ViT.

    The ViT remains a stock KerasHub model: its two layers, `embedding` and
    `blocks`, are called one after the other, and patches are taken out or
    replaced in between. Its position embeddings don't learn. They become sines
    and cosines, unless they have learned: a trained encoder needs its own. One
    that was loaded or copied keeps them, trained or not.

    Args:
        encoder: `keras.Model` that contains a `keras_hub.models.ViTBackbone`,
            or such a backbone, with square images and a class token.
        augmenter: a `ViewAugmenter` of one view. By default
            `kerassl.augmentation.crop_flip` at the encoder's image size.
        **kwargs: the arguments of `keras.Model`.

    Raises:
        ValueError: if the encoder contains no such ViT.
    """

    num_views = 1
    one_size = True
    min_batch = 1
    default_views = staticmethod(augmentation.crop_flip)

    def __init__(
        self,
        encoder: Any,
        augmenter: keras.layers.Layer | None = None,
        **kwargs: Any,
    ):
        super().__init__(encoder, augmenter, **kwargs)
        vit = vit_to_mask(self.encoder, type(self).__name__)
        self.backbone = vit.backbone
        self.preprocessor = part_before(self.encoder, vit.backbone)
        self.embedding, self.blocks = vit.embedding, vit.encoder
        if self.pooling == "mean" and any(
            map(takes_the_first, flat_layers(self.encoder))
        ):
            warnings.warn(
                f"The features of {self.encoder.name!r} are its class token, "
                f"which {type(self).__name__} doesn't train. Take an encoder "
                "whose features are the mean of the patches' "
                '(`pooling="mean"`).',
                stacklevel=3,
            )
        self.patch_size = self.backbone.patch_size[0]
        self.grid, _ = vit.grid
        positions = self.embedding.position_embedding
        table = positions.embeddings
        # Initializers of Keras return the same values each time.
        initial = positions.embeddings_initializer(table.shape, table.dtype)
        values = map(ops.convert_to_numpy, (table, initial))
        if np.array_equal(*values):
            table.assign(sine_positions(self.grid, table.shape[-1]))
        self.keep_frozen()

    def keep_frozen(self) -> None:
        """Freezes the position embeddings."""
        # The variable only: a frozen layer would make the encoder look partly
        # frozen.
        self.embedding.position_embedding.embeddings.trainable = False

    def pixels(self, views: dict[str, Any], training: bool = False) -> Any:
        """Returns the one view `(N, S, S, C)`, normalized for the ViT."""
        (images,) = (views[name] for name in self.augmenter.view_names)
        return self.preprocessor(images, training=training)

    def painted(
        self, images: np.ndarray, patches: np.ndarray, mask: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Puts predicted patches in the place of the hidden ones.

        Args:
            images: float32 array `(N, S, S, C)` in [0, 255].
            patches: array `(N, L, P)` of pixels, normalized for the ViT.
            mask: array `(N, L)`, 1 for hidden patches.

        Returns:
            As `reconstruct`.
        """
        shape = images.shape[1:]
        mask = unpatchify(mask[..., None], self.patch_size, 1)
        # The preprocessing is linear: black and white determine its inverse.
        ends = np.stack([np.zeros(shape, "float32"), np.full(shape, 255.0)])
        black, white = ops.convert_to_numpy(
            ops.cast(self.preprocessor(ends), "float32")
        )
        pixels = unpatchify(patches, self.patch_size, shape[-1])
        pixels = np.clip(255 * (pixels - black) / (white - black), 0, 255)
        return {
            "input": images,
            "mask": mask,
            "reconstruction": np.where(mask > 0, pixels, images),
        }


def vit_to_mask(encoder: keras.Model, method: str) -> ViT:
    """Returns the ViT in an encoder.

    Args:
        encoder: `keras.Model`.
        method: str, its name in messages.

    Raises:
        ValueError: if there is none whose patches can be masked.
    """
    vit = find_vit_backbone(encoder)
    if vit is None:
        raise ValueError(
            f"{method} masks the patches of a `keras_hub.models.ViTBackbone`, "
            f"and the encoder {encoder.name!r} has none. Take such a backbone, "
            "or `kerassl.encoders.build` with the name of a ViT."
        )
    backbone = vit.backbone
    if not backbone.use_class_token:
        raise ValueError(
            f"{method} needs a ViT with a class token. Build the backbone with "
            "`use_class_token=True`."
        )
    height, width, _ = backbone.image_shape
    if height != width or len(set(backbone.patch_size)) != 1:
        raise ValueError(
            f"{method} needs a backbone with square images and square patches. "
            f"Received: image_shape={backbone.image_shape}, "
            f"patch_size={backbone.patch_size}"
        )
    if tuple(backbone.image_shape) != encoder.input_shape[1:]:
        raise ValueError(
            f"The encoder takes images of shape {encoder.input_shape[1:]}, and "
            f"its backbone {backbone.image_shape}. Let the encoder leave their "
            "shape unchanged, and resize in the augmenter instead."
        )
    return vit


def check_hidden(
    ratio: float, hidden: int, total: int, parts: str = "patches"
) -> None:
    """Checks the argument `mask_ratio`.

    Raises:
        ValueError: if it hides none of an image's parts, or all.
    """
    if not 0 < hidden < total:
        raise ValueError(
            f"`mask_ratio` must hide some of the {total} {parts} and leave "
            f"others visible. Received: {ratio}"
        )


def check_blocks(part: str, width: int, depth: int, heads: int) -> None:
    """Checks the arguments `{part}_dim`, `{part}_depth` and `{part}_heads`.

    Raises:
        ValueError: if a number isn't positive, or the width isn't a multiple
            of the heads.
    """
    if min(depth, heads) < 1 or width % heads:
        raise ValueError(
            f"`{part}_depth` and `{part}_heads` must be positive, and "
            f"`{part}_dim` a multiple of the heads. Received: "
            f"{part}_dim={width}, {part}_depth={depth}, {part}_heads={heads}"
        )


def transformer(
    part: str, width: int, depth: int, heads: int, tokens: int, policy: Any
) -> Sequence[keras.layers.Layer]:
    """Returns the built blocks of a small transformer, and its normalization.

    Args:
        part: str, such as `"decoder"`, with which the layers' names begin.
        width: int, of the tokens.
        depth: int, the number of blocks.
        heads: int, a divisor of the width.
        tokens: int, their number.
        policy: the dtype policy.

    Returns:
        A list of layers from `(N, tokens, width)` to the same, of which the
        last is a layer normalization.
    """
    import keras_hub

    blocks = [
        keras_hub.layers.TransformerEncoder(
            4 * width,
            heads,
            activation="gelu",
            layer_norm_epsilon=1e-6,
            normalize_first=True,
            dtype=policy,
            name=f"{part}_block_{i + 1}",
        )
        for i in range(depth)
    ]
    for block in blocks:
        block.build((None, tokens, width))
        linear_xavier(block)
    norm = keras.layers.LayerNormalization(
        epsilon=1e-6, dtype=policy, name=f"{part}_norm"
    )
    norm.build((None, None, width))
    return [*blocks, norm]
