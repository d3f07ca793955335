"""A ViT in an encoder, taken apart before its tokens and after them."""

from typing import Any, NamedTuple

import keras

from kerassl.encoders.graph import part_before
from kerassl.encoders.kerashub import hub_name
from kerassl.encoders.sizes import EMBEDDINGS
from kerassl.image_format import flat_layers
from kerassl.layers import TokensAtSize
from kerassl.networks import is_graph, replay


class TokenParts(NamedTuple):
    """The parts of an encoder with a ViT, which share its layers.

    Attributes:
        preprocessor: `keras.Model` from images to pixels as the ViT needs them.
        embedding: layer from pixels to tokens `(N, T, W)`.
        rest: `keras.Model` from these to all tokens after the last block and
            normalization, `(N, T, W)`.
        pool: `keras.Model` from the latter to the encoder's features `(N, D)`.
    """

    preprocessor: keras.Model
    embedding: keras.layers.Layer
    rest: keras.Model
    pool: keras.Model


def token_parts(encoder: keras.Model) -> TokenParts:
    """Takes an encoder apart.

    Args:
        encoder: `keras.Model` that contains a ViT, DeiT or DINOv2 of KerasHub,
            or what `at_size` makes of it.

    Raises:
        ValueError: if it contains none.
    """
    found = [
        layer
        for layer in flat_layers(encoder)
        if isinstance(layer, TokensAtSize) or hub_name(layer) in EMBEDDINGS
    ]
    if not found:
        raise ValueError(
            f"The encoder {encoder.name!r} has no ViT, DeiT or DINOv2 of "
            "KerasHub, whose patches could be masked. Take such a backbone, or "
            "`kerassl.encoders.build` with the name of a ViT."
        )
    embedding = found[0]
    preprocessor = part_before(encoder, embedding)
    shape = embedding.compute_output_spec(preprocessor.output).shape
    given = keras.Input(shape[1:], name="tokens")
    _, after = _called_after(encoder, embedding, given)
    last, tokens = [x for x in after if _shape(x[1]) == _shape(given)][-1]
    rest = keras.Model(given, tokens, name="rest")
    given = keras.Input(shape[1:], name="tokens")
    features, _ = _called_after(encoder, last, given)
    pool = keras.Model(given, features, name="pool")
    return TokenParts(preprocessor, embedding, rest, pool)


def _called_after(
    encoder: keras.Model, start: Any, given: Any
) -> tuple[Any, list[tuple[Any, Any]]]:
    """Calls the layers after one of them, with `given` in place of its output.

    Returns:
        The output of the last one, and pairs of layers, from `start` on, and
        their outputs.
    """
    pairs: list[tuple[Any, Any]] = []

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        output = given
        if layer is not start:
            if is_graph(layer):
                return replay(layer, args, call)
            if not pairs:
                return given
            output = layer(*args, **kwargs)
        pairs.append((layer, output))
        return output

    return replay(encoder, given, call), pairs


def _shape(tensor: Any) -> tuple:
    """Returns the shape of one image's part of a tensor."""
    return tuple(getattr(tensor, "shape", ()))[1:]
