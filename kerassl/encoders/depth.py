"""A ViT of which images skip random blocks in training."""

from typing import Any

import keras
from keras import ops

from kerassl.distributed import DeviceSeedGenerator
from kerassl.encoders.kerashub import hub_name
from kerassl.networks import is_graph, replay


def at_random_depth(
    encoder: keras.Model, rate: float, seed: int = 0
) -> keras.Model:
    """Returns an encoder with the same layers, and with stochastic depth.

    In training, each image skips blocks of the ViT at random; what the others
    add is scaled up, so that the mean stays. The probability rises linearly
    from 0 for the first block to `rate` for the last. Otherwise it computes
    what the encoder does.

    Such a model is made for training, such as of a student whose teacher has
    the same layers at full depth. It can't be saved: save the encoder.

    Args:
        encoder: Functional `keras.Model` with a `keras_hub.models.ViTBackbone`.
        rate: float in [0, 1).
        seed: int.

    Returns:
        A `keras.Model` that shares all layers and weights.

    Raises:
        ValueError: if the rate is out of its range, or there is no such ViT.

    Reference:
        - [Huang et al., 2016](https://arxiv.org/abs/1603.09382)
    """
    if not 0 <= rate < 1:
        raise ValueError(
            f"The rate of stochastic depth must be in [0, 1). Received: {rate}"
        )
    found = []

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if hub_name(layer) == "ViTEncoder":
            found.append(RandomDepth(layer, rate, seed))
            return found[-1](*args)
        if is_graph(layer):
            return replay(layer, args, call)
        return layer(*args, **kwargs)

    images = keras.Input(encoder.input_shape[1:], name="images")
    features = replay(encoder, images, call)
    if not found:
        raise ValueError(
            "Stochastic depth is for encoders with a ViT of KerasHub, and "
            f"{encoder.name!r} has none. KerasHub's DINOv2 has its own, "
            "`drop_path_rate`."
        )
    return keras.Model(images, features, name=encoder.name)


class RandomDepth(keras.layers.Layer):
    """The blocks of a ViT, of which images skip some in training.

    A block is skipped as a whole: its attention and its dense layers.

    Args:
        encoder: a built `ViTEncoder` of KerasHub.
        rate: float in [0, 1), the last block's probability.
        seed: int.
    """

    def __init__(self, encoder: Any, rate: float, seed: int):
        super().__init__(dtype=encoder.dtype_policy, name=encoder.name)
        self.encoder = encoder
        self.rate = rate
        self.seed_generator = DeviceSeedGenerator(seed)
        self.built = True

    def call(self, tokens: Any, training: bool | None = None) -> Any:
        """Maps tokens `(N, T, D)` to tokens after the last normalization."""
        if not training:
            return self.encoder(tokens)
        blocks = self.encoder.encoder_layers
        uniforms = keras.random.uniform(
            (ops.shape(tokens)[0], len(blocks)), seed=self.seed_generator
        )
        x = self.encoder.dropout(tokens, training=training)
        for i, block in enumerate(blocks):
            skipped = self.rate * i / max(len(blocks) - 1, 1)
            y = block(x)
            if skipped:
                kept = ops.cast(uniforms[:, i, None, None] >= skipped, y.dtype)
                y = x + (y - x) * (kept / (1.0 - skipped))
            x = y
        return self.encoder.layer_norm(x)

    def compute_output_spec(
        self, tokens: Any, training: bool | None = None
    ) -> keras.KerasTensor:
        """Returns the shape and dtype of the tokens."""
        return keras.KerasTensor(tokens.shape, dtype=self.compute_dtype)

    def get_config(self) -> dict:
        """Refuses to be saved: the encoder that it was made of can be."""
        raise ValueError(
            f"{self.name!r} is part of a model that `at_random_depth` made for "
            "training. Save or copy the encoder that it was made of."
        )
