"""Position embeddings of ViTs, interpolated for images of another size."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

# How far bicubic interpolation reaches, in places of the old grid.
REACH = 2


@functools.cache
def bicubic_matrix(
    old: int, new: int, antialias: bool = True, offset: float = 0.0
) -> np.ndarray:
    """Returns the matrix that interpolates a row of values bicubically.

    PyTorch's `interpolate(mode="bicubic", align_corners=False)` is the product
    with it along both axes. The backends' own functions differ.

    Args:
        old: int > 0, the number of values.
        new: int > 0, the number of interpolated values.
        antialias: bool. Whether to average over more values when there are
            fewer new ones. Keys's kernel then has a = -0.5, otherwise -0.75, as
            in PyTorch.
        offset: float, added to `new` where the scale is computed. DINO's code
            and most of DINOv2's models have 0.1.

    Returns:
        A float64 array `(new, old)`, whose rows add up to 1.
    """
    scale = old / (new + offset)
    stretch = max(scale, 1.0) if antialias else 1.0
    centers = (np.arange(new) + 0.5) * scale - 0.5
    places = np.arange(-REACH, old + REACH)
    distances = (places - centers[:, None]) / stretch
    weights = _keys_kernel(distances, -0.5 if antialias else -0.75)
    beyond = weights[:, :REACH], weights[:, -REACH:]
    weights = weights[:, REACH:-REACH]
    if not antialias:
        # Beyond the edges the first and the last value go on.
        weights[:, 0] += beyond[0].sum(axis=1)
        weights[:, -1] += beyond[1].sum(axis=1)
    return weights / weights.sum(axis=1, keepdims=True)


def resized_positions(
    positions: np.ndarray,
    old: tuple[int, int],
    new: tuple[int, int],
    matrix: Callable[[int, int], np.ndarray] = bicubic_matrix,
) -> np.ndarray:
    """Interpolates position embeddings to another grid of patches.

    Args:
        positions: array `(tokens, units)`. Tokens before the grid's, such as
            the class token, are kept.
        old: `(rows, columns)` of the grid.
        new: likewise, of the new grid.
        matrix: function of an axis' old and new number of patches.

    Returns:
        A float32 array `(new tokens, units)`.
    """
    first = len(positions) - old[0] * old[1]
    grid = positions[first:].reshape(*old, -1)
    rows, columns = map(matrix, old, new)
    grid = np.einsum("ah,bw,hwd->abd", rows, columns, grid)
    flat = grid.reshape(-1, positions.shape[-1])
    return np.concatenate([positions[:first], flat]).astype("float32")


def _keys_kernel(x: np.ndarray, a: float) -> np.ndarray:
    x = np.abs(x)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x < 1, near, np.where(x < REACH, far, 0.0))


class Parts(NamedTuple):
    """The parts of a KerasHub layer that makes tokens of patches.

    Attributes:
        patches: layer from images to a map of patches.
        grid: the rows and columns of patches that it has positions for.
        positions: variable `(1, T, D)` or `(T, D)`, the trained ones.
        first: variables `(1, n, D)`, tokens with positions before the patches.
        registers: variables `(1, n, D)`, tokens without, after those.
        dropout: layer or `None`.
        interpolation: arguments of `bicubic_matrix`.
    """

    patches: Any
    grid: tuple[int, int]
    positions: Any
    first: list[Any]
    registers: list[Any]
    dropout: Any
    interpolation: dict


def parts_of(embedding: Any) -> Parts:
    """Returns the parts of a `ViTPatchingAndEmbedding` or of its kin."""
    if not hasattr(embedding, "interpolated_position_embeddings"):
        rows, columns = embedding.patch_size
        height, width = embedding.image_size
        names = ("class_token", "distillation_token")
        table = embedding.position_embedding
        return Parts(
            embedding.patch_embedding,
            (height // rows, width // columns),
            getattr(table, "embeddings", table),
            [getattr(embedding, x) for x in names if hasattr(embedding, x)],
            [],
            getattr(embedding, "dropout", None),
            {},
        )
    height, width = embedding.image_shape
    patch = embedding.patch_size
    antialias = embedding.antialias_in_interpolation
    return Parts(
        embedding.patch_embeddings.projection,
        (height // patch, width // patch),
        embedding.interpolated_position_embeddings,
        [embedding.cls_token],
        [embedding.register_tokens] if embedding.num_register_tokens else [],
        embedding.dropout,
        dict(antialias=antialias, offset=0.0 if antialias else 0.1),
    )


class TokensAtSize(keras.layers.Layer):
    """A ViT's embedding of patches, for images of another size.

    It has no weights of its own. The positions of patches are interpolated in
    each call, so that gradients reach the ones that are trained. Those of the
    class and distillation tokens stay as they are; register tokens have none.

    It is part of models that `kerassl.encoders.at_size` returns for training,
    and of no encoder in a file.

    Positions are interpolated as timm does it, with antialiasing. For DINOv2
    that depends on `antialias_in_interpolation` of the backbone: without it,
    as in the models without register tokens, 0.1 is added to the size.

    Args:
        embedding: a built `ViTPatchingAndEmbedding`, `DeiTEmbeddings` or
            `DINOV2Embedding` of KerasHub.
        size: int, the height and width of the images.

    Raises:
        ValueError: if the size can't be split into patches.

    Reference:
        - timm's `resample_abs_pos_embed`, and `interpolate_pos_encoding` in
          [DINO's](https://github.com/facebookresearch/dino) and
          [DINOv2's](https://github.com/facebookresearch/dinov2) code
    """

    def __init__(self, embedding: Any, size: int):
        # No autocast: positions are interpolated in full precision.
        super().__init__(
            dtype=embedding.dtype_policy,
            autocast=False,
            name=f"{embedding.name}_{size}",
        )
        self.embedding = embedding
        self.size = size
        patches, old, _, first, registers, *_, interpolation = parts_of(
            embedding
        )
        rows, columns = patches.kernel_size
        if size % rows or size % columns:
            raise ValueError(
                f"{size}x{size} can't be split into patches of "
                f"{rows}x{columns}."
            )
        self.grid = (size // rows, size // columns)
        #: The number of tokens before those of the patches.
        self.first_tokens = sum(x.shape[1] for x in first + registers)
        #: Whether the first token is a class token.
        self.use_class_token = bool(first)
        self._matrices = [
            bicubic_matrix(*lengths, **interpolation)
            for lengths in zip(old, self.grid)
        ]
        self._sent: dict = {}

    def call(self, images: Any, training: bool | None = None) -> Any:
        """Maps images `(N, S, S, C)` to tokens `(N, T, D)`."""
        maps = parts_of(self.embedding).patches(images)
        shape = (-1, self.grid[0] * self.grid[1], maps.shape[-1])
        return self.complete(ops.reshape(maps, shape), training)

    def complete(self, patches: Any, training: bool | None = None) -> Any:
        """Adds positions to the tokens of patches, and the first tokens.

        Args:
            patches: tensor `(N, rows * columns, D)`.
            training: bool.

        Returns:
            A tensor `(N, T, D)`.
        """
        parts = parts_of(self.embedding)
        dtype, width = patches.dtype, patches.shape[-1]
        table = ops.reshape(ops.convert_to_tensor(parts.positions), (-1, width))
        count = parts.positions.shape[-2] - parts.grid[0] * parts.grid[1]
        tokens = patches + ops.cast(self._at_size(table[count:]), dtype)
        if count:
            first = [ops.convert_to_tensor(x)[0] for x in parts.first]
            first = [_joined(first) + table[:count]]
            first += [ops.convert_to_tensor(x)[0] for x in parts.registers]
            # Adding zeros repeats it for each image, however many there are.
            zeros = ops.zeros_like(tokens[:, :1])
            first = ops.cast(_joined(first), dtype) + zeros
            tokens = ops.concatenate([first, tokens], axis=1)
        if parts.dropout is not None:
            tokens = parts.dropout(tokens, training=training)
        return tokens

    def _at_size(self, positions: Any) -> Any:
        """Interpolates positions `(old rows * old columns, D)` of patches."""
        rows, columns = self._constants(positions)
        width = positions.shape[-1]
        height, breadth = rows.shape[1], columns.shape[1]
        x = ops.reshape(positions, (height, breadth * width))
        x = ops.reshape(ops.matmul(rows, x), (-1, breadth, width))
        return ops.reshape(ops.matmul(columns, x), (-1, width))

    def _constants(self, like: Any) -> list[Any]:
        """Returns the matrices; PyTorch sends them only once."""
        if keras.backend.backend() != "torch":
            return [ops.cast(x, like.dtype) for x in self._matrices]
        key = like.device, like.dtype
        if key in self._sent:
            return self._sent[key]
        import torch

        made = [
            torch.tensor(x, dtype=like.dtype, device=like.device)
            for x in self._matrices
        ]
        if not torch.compiler.is_compiling():
            self._sent[key] = made
        return made

    def compute_output_spec(
        self, images: Any, training: bool | None = None
    ) -> keras.KerasTensor:
        """Returns the shape and dtype of the tokens."""
        count = self.first_tokens + self.grid[0] * self.grid[1]
        width = parts_of(self.embedding).positions.shape[-1]
        return keras.KerasTensor(
            (images.shape[0], count, width), dtype=self.compute_dtype
        )

    def get_config(self) -> dict:
        """Refuses to be saved: the encoder that it was made of can be."""
        raise ValueError(
            f"{self.name!r} is part of a model that "
            "`kerassl.encoders.at_size` made for training. Save or copy the "
            "encoder that it was made of."
        )


class MaskedTokens(TokensAtSize):
    """A ViT's embedding of patches, with a mask token in place of some.

    The mask token is DINOv2's own, or else a weight of this layer. It starts
    at 0, and gets the positions of the patches that it replaces.

    Args:
        embedding: as in `TokensAtSize`, for square images; or such a layer, for
            images of its size.

    Raises:
        ValueError: if the patches aren't a square.

    Reference:
        - [Bao et al., 2021, BEiT](https://arxiv.org/abs/2106.08254)
        - [Zhou et al., 2021, iBOT](https://arxiv.org/abs/2111.07832)
    """

    def __init__(self, embedding: Any):
        size = None
        if isinstance(embedding, TokensAtSize):
            size, embedding = embedding.size, embedding.embedding
        parts = parts_of(embedding)
        rows, columns = parts.grid
        height, width = parts.patches.kernel_size
        if rows != columns or height != width:
            raise ValueError(
                "Patches are masked in square images with square patches. "
                f"{embedding.name!r} has {rows}x{columns} patches of "
                f"{height}x{width}."
            )
        super().__init__(embedding, size or rows * height)
        if self.grid == parts.grid:
            # As in the embedding itself, whatever is added to other sizes.
            self._matrices = [np.eye(rows, dtype="float32")] * 2
        if not hasattr(embedding, "mask_token"):
            self.mask_token = self.add_weight(
                name="mask_token",
                shape=(1, parts.positions.shape[-1]),
                initializer="zeros",
            )

    def call(  # type: ignore[override]
        self, images: Any, masks: Any, training: bool | None = None
    ) -> Any:
        """Maps images and masks `(N, L)`, 1 for hidden, to `(N, T, D)`."""
        maps = parts_of(self.embedding).patches(images)
        shape = (-1, self.grid[0] * self.grid[1], maps.shape[-1])
        patches = ops.reshape(maps, shape)
        token = getattr(self.embedding, "mask_token", None)
        token = self.mask_token if token is None else token
        token = ops.cast(ops.convert_to_tensor(token), patches.dtype)
        hidden = ops.cast(masks, "bool")[..., None]
        return self.complete(ops.where(hidden, token, patches), training)

    def compute_output_spec(  # type: ignore[override]
        self, images: Any, masks: Any, training: bool | None = None
    ) -> keras.KerasTensor:
        """Returns the shape and dtype of the tokens."""
        return super().compute_output_spec(images)


def _joined(tensors: list[Any]) -> Any:
    return tensors[0] if len(tensors) == 1 else ops.concatenate(tensors)
