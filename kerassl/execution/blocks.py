"""Makers for layers made of layers: attention, transformer blocks, heads."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import torch
from keras import layers
from torch.nn import functional

from kerassl.execution.makers import (
    MAKERS,
    Pass,
    Run,
    cast,
    torch_dtype,
)
from kerassl.execution.moving import MovingStatistics
from kerassl.execution.pytorch import channels_last, channels_second
from kerassl.layers import MLPHead, TokensAtSize
from kerassl.layers.positions import parts_of
from kerassl.networks import all_layers, is_rematerialized

# A disagreement that rounding in half precision doesn't explain.
UNLIKE = 0.05


def make(
    layer: Any,
    shapes: list[Any],
    moving: MovingStatistics,
    dtype: str,
    **options: Any,
) -> Run | None:
    """Returns what PyTorch computes for a layer, or `None` to leave it.

    Args:
        layer: Keras layer.
        shapes: the shapes of its inputs.
        moving: the moving statistics of its network.
        dtype: str, the network's compute dtype.
        **options: of the layer's maker.
    """
    kind = kind_of(layer)
    if not all(map(is_plain, all_layers(layer))):
        return None
    if kind in COMPOSED:
        run = COMPOSED[kind](layer, shapes, moving, dtype)
    elif kind in MAKERS and _fits(layer, dtype):
        run = MAKERS[kind](layer, shapes, moving, **options)
    else:
        return None
    if run is None or not layer.autocast:
        return run
    return _casting(run, torch_dtype(layer.compute_dtype))


def kind_of(layer: Any) -> Any:
    """Returns a layer's class, or the name of one of KerasHub's.

    For a lent class it is the layer's own.
    """
    kind = vars(type(layer)).get("_kerassl_kind", type(layer))
    if kind.__module__.startswith("keras_hub."):
        return f"keras_hub.{kind.__name__}"
    return kind


def is_known(layer: Any) -> bool:
    """Returns whether layers of this class usually run without Keras."""
    return kind_of(layer) in COMPOSED or kind_of(layer) in MAKERS


def is_plain(layer: Any) -> bool:
    """Returns whether a layer does nothing beside what its class says."""
    # PyTorch has no public name to ask for hooks.
    own = vars(layer)
    return not (
        {"call", "forward"} & set(own)
        or any(own[name] for name in own if name.endswith("hooks"))
        or is_rematerialized(layer)
        or layer.activity_regularizer
        or layer.quantization_mode
        or getattr(layer, "lora_enabled", False)
        or getattr(layer, "data_format", None) == "channels_first"
    )


def _fits(layer: Any, dtype: str) -> bool:
    # Within a network's call Keras casts variables to the network's dtype,
    # except for those of batch normalization.
    if isinstance(layer, layers.BatchNormalization) or not layer.variables:
        return True
    return layer.compute_dtype == dtype


def _casting(run: Run, dtype: torch.dtype) -> Run:
    def casting(state: Pass, *inputs: torch.Tensor) -> torch.Tensor:
        for x in inputs:
            if x.dtype != dtype and x.is_floating_point():
                break
        else:
            return run(state, *inputs)
        return run(
            state,
            *[cast(x, dtype) if x.is_floating_point() else x for x in inputs],
        )

    return casting


def _chain(
    stack: Sequence[Any], shape: Any, moving: MovingStatistics, dtype: str
) -> Run | None:
    """Returns what layers that keep the rank compute one after another."""
    return _joined([make(layer, [shape], moving, dtype) for layer in stack])


def _joined(runs: Sequence[Run | None]) -> Run | None:
    known = [run for run in runs if run is not None]
    if len(known) < len(runs):
        return None

    def joined(state: Pass, x: torch.Tensor) -> torch.Tensor:
        for run in known:
            x = run(state, x)
        return x

    return joined


def _head(
    head: Any, shapes: list[Any], moving: MovingStatistics, dtype: str
) -> Run | None:
    return _chain(head.stack, shapes[0], moving, dtype)


def _attention(
    layer: Any, shapes: list[Any], moving: MovingStatistics, dtype: str
) -> Run | None:
    """Self-attention over all tokens of `(N, T, D)`."""
    parts = (
        layer.query_dense,
        layer.key_dense,
        layer.value_dense,
        layer.output_dense,
    )
    if [len(shape) for shape in shapes] != [3] or not _fits(layer, dtype):
        return None
    unknown = ("dropout", "sliding_window", "use_gate")
    if any(map(layer.get_config().get, unknown)):
        return None
    compute = torch_dtype(layer.compute_dtype)
    scale = layer.key_dim**-0.5

    def project(
        state: Pass, dense: Any, x: torch.Tensor, width: int
    ) -> torch.Tensor:
        weight = state.value(dense.kernel, compute)
        weight = weight.reshape(x.shape[-1], width).t()
        bias = state.value(dense.bias, compute)
        return functional.linear(
            x, weight, None if bias is None else bias.reshape(width)
        )

    def run(state: Pass, x: torch.Tensor) -> torch.Tensor:
        heads = []
        for dense in parts[:3]:
            count, width = dense.kernel.shape[1:]
            y = project(state, dense, x, count * width)
            heads.append(y.unflatten(-1, (count, width)).transpose(1, 2))
        q, k, v = heads
        y = functional.scaled_dot_product_attention(q, k, v, scale=scale)
        y = y.transpose(1, 2).flatten(2)
        return project(state, parts[3], y, x.shape[-1])

    return run


def _vit_embedding(
    layer: Any, shapes: list[Any], moving: MovingStatistics, dtype: str
) -> Run | None:
    """Tokens of patches, after the class token, with their positions."""
    patches = make(layer.patch_embedding, shapes, moving, dtype)
    if patches is None or not _fits(layer, dtype):
        return None
    compute = torch_dtype(layer.compute_dtype)

    def run(state: Pass, x: torch.Tensor) -> torch.Tensor:
        tokens = patches(state, x).flatten(2).transpose(1, 2)
        if layer.use_class_token:
            first = state.value(layer.class_token, compute)
            first = first.expand(len(tokens), -1, -1)
            tokens = torch.cat([first, tokens], 1)
        positions = layer.position_embedding.embeddings
        return tokens + state.value(positions, compute)

    return run


def _tokens_at_size(
    layer: Any, shapes: list[Any], moving: MovingStatistics, dtype: str
) -> Run | None:
    """The same for images of another size."""
    parts = parts_of(layer.embedding)
    patches = make(parts.patches, shapes, moving, dtype)
    if patches is None or not _fits(layer, dtype):
        return None

    def run(state: Pass, x: torch.Tensor) -> torch.Tensor:
        tokens = patches(state, x).flatten(2).transpose(1, 2)
        return layer.complete(tokens, state.training)

    return run


def _vit_mlp(
    layer: Any, shapes: list[Any], moving: MovingStatistics, dtype: str
) -> Run | None:
    stack = (layer.dense_1, layer.dropout, layer.dense_2, layer.dropout)
    return _chain(stack, shapes[0], moving, dtype)


def _vit_block(
    block: Any, shapes: list[Any], moving: MovingStatistics, dtype: str
) -> Run | None:
    first = (block.layer_norm_1, block.mha, block.dropout)
    second = (block.layer_norm_2, block.mlp)
    return _residual(first, second, shapes[0], moving, dtype)


def _residual(
    first: Sequence[Any],
    second: Sequence[Any],
    shape: Any,
    moving: MovingStatistics,
    dtype: str,
) -> Run | None:
    """Adds to tokens what layers compute of them, twice."""
    attend = _chain(first, shape, moving, dtype)
    think = _chain(second, shape, moving, dtype)
    if attend is None or think is None:
        return None

    def run(state: Pass, x: torch.Tensor) -> torch.Tensor:
        x = x + attend(state, x)
        return x + think(state, x)

    return run


def _transformer_encoder(
    block: Any, shapes: list[Any], moving: MovingStatistics, dtype: str
) -> Run | None:
    """A block of MAE's decoder, whose layers are known by name only."""
    layer = {layer.name: layer for layer in all_layers(block)}
    if not (block.normalize_first and set(FIRST + SECOND) <= set(layer)):
        return None
    first, second = ([layer[n] for n in names] for names in (FIRST, SECOND))
    return _residual(first, second, shapes[0], moving, dtype)


FIRST = (
    "self_attention_layer_norm",
    "self_attention_layer",
    "self_attention_dropout",
)
SECOND = (
    "feedforward_layer_norm",
    "feedforward_intermediate_dense",
    "feedforward_output_dense",
    "feedforward_dropout",
)


def _vit_encoder(
    encoder: Any, shapes: list[Any], moving: MovingStatistics, dtype: str
) -> Run | None:
    runs = [make(encoder.dropout, shapes, moving, dtype)]
    for block in encoder.encoder_layers:
        if kind_of(block) != "keras_hub.ViTEncoderBlock":
            return None
        runs.append(_vit_block(block, shapes, moving, dtype))
    runs.append(make(encoder.layer_norm, shapes, moving, dtype))
    return _joined(runs)


def _checked(maker: Callable) -> Callable:
    """Leaves a layer to Keras if its library computes something else now."""

    def checked(
        layer: Any, shapes: list[Any], moving: MovingStatistics, dtype: str
    ) -> Run | None:
        run = maker(layer, shapes, moving, dtype)
        if run is None:
            return None
        with torch.no_grad():
            shape = [size or 3 for size in shapes[0]]
            x = keras.random.normal(shape, dtype=layer.compute_dtype, seed=0)
            expected = layer(x, training=False).float()
            found = run(Pass(False, moving), channels_second(x))
            error = channels_last(found).float() - expected
            agrees = error.norm() < UNLIKE * expected.norm()
        return run if agrees else None

    return checked


COMPOSED: dict[Any, Callable] = {
    MLPHead: _head,
    layers.MultiHeadAttention: _attention,
    TokensAtSize: _tokens_at_size,
    "keras_hub.MLP": _vit_mlp,
    "keras_hub.ViTPatchingAndEmbedding": _checked(_vit_embedding),
    "keras_hub.TransformerEncoder": _checked(_transformer_encoder),
    "keras_hub.ViTEncoderBlock": _checked(_vit_block),
    "keras_hub.ViTEncoder": _checked(_vit_encoder),
}


def input_shape(layer: Any) -> tuple[int | None, ...] | None:
    """Returns the shape of what a layer takes that is run on its own.

    It is `None` for kinds of layers that aren't worth it.
    """
    if kind_of(layer) is MLPHead:
        return (None, layer.stack[0].kernel.shape[0])
    if kind_of(layer) in ("keras_hub.ViTEncoderBlock", "keras_hub.ViTEncoder"):
        # Their own `call` isn't told whether to drop out.
        if not (layer.dropout_rate or layer.attention_dropout):
            return (None, None, layer.hidden_dim)
    if kind_of(layer) == "keras_hub.TransformerEncoder" and layer.built:
        # Its last weight is the offset of its last layer.
        return (None, None, layer.weights[-1].shape[-1])
    return None
