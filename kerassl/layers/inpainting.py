"""The context encoder's networks: bottleneck, decoder and discriminator.

Kernels, normalization and activations are DCGAN's, which the authors of the
context encoder took over.

Reference:
    - [Pathak et al., 2016](https://arxiv.org/abs/1604.07379)
    - [Radford et al., 2015, DCGAN](https://arxiv.org/abs/1511.06434)
"""

import math
from typing import Any

import keras
from keras import layers, ops

from kerassl.image_format import LAST
from kerassl.layers.channelwise_dense import ChannelwiseDense

# The height and width of the map that DCGAN's last convolution sees.
SMALLEST = 4
FEWEST_CHANNELS = 16


def bottleneck(
    map_shape: tuple[int | None, ...], width: int, dtype: Any = None
) -> keras.Sequential:
    """Connects all positions of a feature map, then all of its channels.

    Args:
        map_shape: `(None, h, w, D)`.
        width: int, the channels of the output.
        dtype: dtype policy of the layers.

    Returns:
        A built model from `(N, h, w, D)` to `(N, h, w, width)`.
    """
    stack = [
        ChannelwiseDense(dtype=dtype, name="channelwise"),
        _conv(layers.Conv2D, width, 1, "channels", dtype),
        _norm("norm", dtype),
        layers.LeakyReLU(0.2, dtype=dtype, name="relu"),
    ]
    return _built("bottleneck", stack, map_shape)


def decoder(
    map_shape: tuple[int | None, ...],
    size: int,
    channels: int,
    dtype: Any = None,
) -> keras.Sequential:
    """Paints square images from the bottleneck's map.

    Each transposed convolution doubles height and width, and halves the
    channels. What exceeds the size is cropped.

    Args:
        map_shape: `(None, h, w, D)`, with h = w.
        size: int, the height and width of the images.
        channels: int, of the images.
        dtype: dtype policy of the layers.

    Returns:
        A built model from `(N, h, w, D)` to `(N, size, size, channels)` with
        values in [-1, 1].
    """
    _, side, _, width = map_shape
    assert side and width
    stack: list[keras.layers.Layer] = []
    doublings = max(1, math.ceil(math.log2(size / side)))
    for i in range(1, doublings):
        filters = max(FEWEST_CHANNELS, width // 2**i)
        stack += [
            _conv(layers.Conv2DTranspose, filters, 4, f"conv_{i}", dtype, 2),
            _norm(f"norm_{i}", dtype),
            layers.ReLU(dtype=dtype, name=f"relu_{i}"),
        ]
    excess = side * 2**doublings - size
    ends = (excess // 2, excess - excess // 2)
    stack += [
        _conv(layers.Conv2DTranspose, channels, 4, "conv_output", dtype, 2),
        layers.Activation("tanh", dtype=dtype, name="tanh"),
        layers.Cropping2D((ends, ends), LAST, dtype=dtype, name="crop"),
    ]
    return _built("decoder", stack, map_shape)


def discriminator(
    size: int, channels: int, width: int, dtype: Any = None
) -> keras.Sequential:
    """Tells images from paintings.

    Convolutions of stride 2 down to a 4x4 map, and one over the whole map.

    Args:
        size: int, the height and width of the images.
        channels: int, of the images.
        width: int, the channels of the first layer. Each further layer doubles
            them, up to 8 times.
        dtype: dtype policy of the layers.

    Returns:
        A built model from `(N, size, size, channels)` to logits `(N, 1)`,
        positive for images.
    """
    stack: list[keras.layers.Layer] = []
    side, i = size, 0
    while side > SMALLEST:
        filters = width * min(2**i, 8)
        i, side = i + 1, math.ceil(side / 2)
        stack.append(_conv(layers.Conv2D, filters, 4, f"conv_{i}", dtype, 2))
        if i > 1:
            stack.append(_norm(f"norm_{i}", dtype))
        stack.append(layers.LeakyReLU(0.2, dtype=dtype, name=f"relu_{i}"))
    stack += [
        layers.Flatten(LAST, dtype=dtype, name="flatten"),
        layers.Dense(
            1,
            use_bias=False,
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.02),
            dtype=dtype,
            name="logit",
        ),
    ]
    return _built("discriminator", stack, (None, size, size, channels))


def discriminate(
    network: keras.Model, real: Any, painted: Any, training: bool
) -> dict[str, Any]:
    """Runs a discriminator for its own loss, and for the painter's.

    The gradients are kept apart: of `"real"` and `"fake"` they reach only the
    discriminator, of `"adversarial"` only the painting.

    Args:
        network: the discriminator.
        real: float tensor `(N, S, S, C)`, images.
        painted: float tensor of the same shape.
        training: bool. Moves the discriminator's moving statistics, once for
            the images and once for the paintings.

    Returns:
        A dict of logits `(N, 1)`: `"real"`, `"fake"` and `"adversarial"`, the
        last two of the same paintings.
    """
    # All three share one read of the weights. On TensorFlow an update waits
    # only for the reads that its gradient came from (Grappler drops the other
    # dependencies), so a read of the painter only may see updated weights.
    weights = [ops.copy(w) for w in network.trainable_variables]
    frozen = [ops.stop_gradient(w) for w in weights]
    state = [w.value for w in network.non_trainable_variables]
    logits = {}
    logits["real"], state = network.stateless_call(
        weights, state, real, training=training
    )
    logits["fake"], state = network.stateless_call(
        weights, state, ops.stop_gradient(painted), training=training
    )
    # The moving statistics have seen the paintings already.
    logits["adversarial"], _ = network.stateless_call(
        frozen, state, painted, training=training
    )
    if training:
        for variable, value in zip(network.non_trainable_variables, state):
            variable.assign(value)
    return logits


def _conv(
    kind: type,
    filters: int,
    kernel: int,
    name: str,
    dtype: Any,
    strides: int = 1,
) -> keras.layers.Layer:
    return kind(
        filters,
        kernel,
        strides=strides,
        padding="same",
        data_format=LAST,
        use_bias=False,
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.02),
        dtype=dtype,
        name=name,
    )


def _norm(name: str, dtype: Any) -> keras.layers.Layer:
    return layers.BatchNormalization(
        momentum=0.9,
        epsilon=1e-5,
        gamma_initializer=keras.initializers.RandomNormal(1.0, 0.02),
        dtype=dtype,
        name=name,
    )


def _built(name: str, stack: list, shape: tuple) -> keras.Sequential:
    model = keras.Sequential(stack, name=name)
    model.build(shape)
    return model
