"""Pictures of what the class token of a ViT attends to."""

from typing import TYPE_CHECKING, Any

import numpy as np
from keras import ops

from kerassl import encoders
from kerassl.encoders.graph import ViT, find_vit_backbone, part_before
from kerassl.visualization.features import encoder_of
from kerassl.visualization.figures import (
    head,
    load_matplotlib,
    make_figure,
    show,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def attention_maps(model: Any, images: Any, block: int = -1) -> "Figure":
    """Draws where in images the class token of a ViT looks.

    Args:
        model: `SelfSupervisedModel` or an encoder with a
            `keras_hub.models.ViTBackbone` in it.
        images: array `(N, H, W, C)` of the encoder's shape, uint8 or float in
            [0, 255], a few.
        block: int, the index of a transformer block; -1 is the last.

    Returns:
        A `matplotlib.figure.Figure` with a row for each image: the image, the
        mean of all attention heads, and each head. The brighter a patch, the
        more attention it gets. Each map has its own scale, from 0 to its
        maximum.

    Raises:
        ImportError: if matplotlib is missing.
        ValueError: if the encoder has no such ViT or block, or the shape, dtype
            or range of the images is wrong.

    Example:
    ```python
    kerassl.visualization.attention_maps(model, images[:4]).savefig("at.png")
    ```
    """
    load_matplotlib()
    attention = class_attention(model, images, block)
    count, heads, _, _ = attention.shape
    figure, axes = make_figure(count, 2 + heads)
    for row, image, maps in zip(axes, ops.convert_to_numpy(images), attention):
        show(row[0], image)
        # Draw maps over the same area as the pixels of the image.
        extent = row[0].images[0].get_extent()
        for axis, weights in zip(row[1:], [maps.mean(axis=0), *maps]):
            axis.imshow(weights, extent=extent, vmin=0)
            axis.set_axis_off()
    head(axes, ["image", "mean", *(f"head {i + 1}" for i in range(heads))])
    return figure


def class_attention(model: Any, images: Any, block: int = -1) -> np.ndarray:
    """Computes the attention of a ViT's class token to each patch, in a block.

    Args:
        model: as in `attention_maps`.
        images: likewise.
        block: likewise.

    Returns:
        A float32 array `(N, heads, h, w)`, one number per patch. The numbers of
        a head sum to 1 minus the attention of the class token to itself.

    Raises:
        ValueError: as in `attention_maps`.

    Reference:
        - [Dosovitskiy et al., 2020, ViT](https://arxiv.org/abs/2010.11929)
    """
    encoder = encoder_of(model)
    vit = vit_of(encoder)
    if vit is None:
        raise ValueError(
            "Attention maps need a `keras_hub.models.ViTBackbone` with a class "
            f"token, and the encoder {encoder.name!r} has none. Build one by "
            "name with `kerassl.encoders.build`."
        )
    blocks = vit.blocks
    if not -len(blocks) <= block < len(blocks):
        raise ValueError(
            f"`block` must be between {-len(blocks)} and {len(blocks) - 1}, "
            f"since the ViT has {len(blocks)} blocks. Received: {block}"
        )
    images = encoders.checked_images(encoder, images)
    tokens = vit.embedding(part_before(encoder, vit.backbone)(images))
    for earlier in blocks[: block % len(blocks)]:
        tokens = earlier(tokens)
    chosen = blocks[block]
    normal = chosen.layer_norm_1(tokens)
    _, scores = chosen.mha(normal, normal, return_attention_scores=True)
    attention = ops.convert_to_numpy(ops.cast(scores[:, :, 0, 1:], "float32"))
    return attention.reshape(*attention.shape[:2], *vit.grid)


def vit_of(encoder: Any) -> ViT | None:
    """Returns the ViT with a class token in an encoder, or `None`."""
    vit = find_vit_backbone(encoder)
    return vit if vit and vit.backbone.use_class_token else None
