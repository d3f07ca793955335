"""Puts normalization before a network and pooling after it."""

from typing import Any
from weakref import WeakSet

import keras
from keras import layers

from kerassl.encoders.graph import first_tokens
from kerassl.image_format import LAST, flat_layers, pinned

# Models that `build`, `as_encoder` or a loader returned: `as_encoder` doesn't
# check them again.
_ENCODERS: "WeakSet[keras.Model]" = WeakSet()


def accepted(encoder: keras.Model) -> keras.Model:
    """Marks a model as an encoder, which `as_encoder` then returns unchanged.

    Args:
        encoder: `keras.Model` from images in [0, 255] to features.
    """
    _ENCODERS.add(encoder)
    return pinned(encoder)


def is_accepted(model: keras.Model) -> bool:
    """Returns whether a model was marked as an encoder."""
    return model in _ENCODERS


def encoder_around(
    body: keras.Model,
    normalization: Any,
    image_shape: tuple,
    name: str,
    pooling: str | None = None,
) -> keras.Model:
    """Adds normalization before a network, and pooling after it.

    Args:
        body: `keras.Model` from normalized images to features, a map or tokens.
        normalization: a layer or function, or `None`.
        image_shape: `(height, width, channels)`.
        name: str.
        pooling: of tokens, as in `as_encoder`.

    Returns:
        A Functional `keras.Model`.

    Raises:
        ValueError: if it isn't known how to pool the tokens.
    """
    images = keras.Input(image_shape, name="images")
    x = images if normalization is None else normalization(images)
    # KerasHub's DINO backbones take a dict of one tensor.
    inputs = getattr(body, "input", None)
    x = body(dict.fromkeys(inputs, x) if isinstance(inputs, dict) else x)
    class_token, left_out = False, 0
    if len(x.shape) == 3:
        class_token, left_out = _of_tokens(body, pooling)
    # Unlike the layers inside, which `replay` puts into the same graph.
    taken = any(layer.name == "pool" for layer in flat_layers(body))
    pool = "features" if taken else "pool"
    features = pooled(x, class_token, pool, left_out=left_out)
    return accepted(keras.Model(images, features, name=name))


def _of_tokens(body: Any, pooling: str | None) -> tuple[bool, int]:
    """Returns whether to take the class token; if not, how many to leave out.

    The mean is over the tokens of patches: those before them are left out.
    """
    first = first_tokens(body)
    if first is None and pooling is None:
        raise ValueError(
            f"{body.name!r} returns tokens, and which of them are the image's "
            'features isn\'t known. Pass `pooling="class"` to `as_encoder` if '
            'the first is a class token, or `pooling="mean"` if all belong to '
            "patches."
        )
    if first == 0 and pooling == "class":
        raise ValueError(
            f'{body.name!r} has no class token. Pass `pooling="mean"`.'
        )
    class_token = bool(first) if pooling is None else pooling == "class"
    return class_token, 0 if class_token else first or 0


def pooled(
    x: Any,
    class_token: bool,
    name: str = "pool",
    dtype: Any = None,
    left_out: int = 0,
) -> Any:
    """Pools a map or tokens to features, as `as_encoder` describes.

    Args:
        x: tensor `(N, H, W, D)`, `(N, T, D)` or `(N, D)`.
        class_token: bool. Whether to take the first token, a class token.
        name: str, of the layer that returns the features.
        dtype: dtype of the layers; by default Keras's global policy.
        left_out: int, how many of the first tokens to leave out of the mean.

    Returns:
        A tensor `(N, D)`.
    """
    # Only core layers, so that the encoder loads without kerassl.
    same: dict[str, Any] = dict(name=name, dtype=dtype)
    if len(x.shape) == 2:
        return layers.Identity(**same)(x)
    if len(x.shape) == 4:
        return layers.GlobalAveragePooling2D(LAST, **same)(x)
    if not class_token:
        if left_out:
            x = layers.Cropping1D(
                (left_out, 0), name=f"{name}_patches", dtype=dtype
            )(x)
        return layers.GlobalAveragePooling1D(LAST, **same)(x)
    if x.shape[1] is None:
        raise ValueError(
            "The number of tokens is unknown. Make the model for images of a "
            f"known size. Received tokens of shape {x.shape}"
        )
    token = layers.Cropping1D(
        (0, x.shape[1] - 1), name=f"{name}_token", dtype=dtype
    )(x)
    return layers.Reshape((x.shape[-1],), **same)(token)
