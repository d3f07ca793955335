"""A ViT in an encoder, taken apart before its tokens and after them."""

from typing import Any, NamedTuple

import keras

from kerassl.encoders.graph import part_before
from kerassl.encoders.kerashub import hub_name
from kerassl.encoders.sizes import EMBEDDINGS
from kerassl.image_format import flat_layers
from kerassl.networks import is_graph, replay


class TokenParts(NamedTuple):
    """The parts of an encoder with a ViT, which share its layers.

    Attributes:
        preprocessor: `keras.Model` from images to pixels as the ViT needs them.
        embedding: layer from pixels to tokens `(N, T, W)`.
        rest: `keras.Model` from tokens to the encoder's features `(N, D)`, and
            to all tokens after the last block and normalization, `(N, T, W)`.
    """

    preprocessor: keras.Model
    embedding: keras.layers.Layer
    rest: keras.Model


def token_parts(encoder: keras.Model) -> TokenParts:
    """Takes an encoder apart.

    Args:
        encoder: `keras.Model` that contains a ViT, DeiT or DINOv2 of KerasHub.

    Raises:
        ValueError: if it contains none.
    """
    found = [x for x in flat_layers(encoder) if hub_name(x) in EMBEDDINGS]
    if not found:
        raise ValueError(
            f"The encoder {encoder.name!r} has no ViT, DeiT or DINOv2 of "
            "KerasHub, whose patches could be masked. Take such a backbone, or "
            "`kerassl.encoders.build` with the name of a ViT."
        )
    embedding = found[0]
    preprocessor = part_before(encoder, embedding)
    shape = embedding.compute_output_shape(preprocessor.output_shape)
    given = keras.Input(shape[1:], name="tokens")
    tokens: list[Any] = []

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if layer is embedding:
            tokens.append(given)
        elif is_graph(layer):
            return replay(layer, args, call)
        if layer is embedding or not tokens:
            return given
        output = layer(*args, **kwargs)
        if getattr(output, "shape", ())[1:] == given.shape[1:]:
            tokens.append(output)
        return output

    features = replay(encoder, given, call)
    rest = keras.Model(given, [features, tokens[-1]], name="rest")
    return TokenParts(preprocessor, embedding, rest)
