"""Residual networks for small images, as graphs of core Keras layers.

KerasHub's ResNet reduces the resolution twice before its first block, which is
too early for images of 32 pixels. These are plain Functional models, so that a
published encoder loads with only Keras.
"""

from typing import Any

import keras
from keras import layers

from kerassl.image_format import LAST


def small_resnet(
    inputs: Any,
    widths: tuple[int, ...],
    blocks: tuple[int, ...],
    bottleneck: bool = False,
    stem_strides: int = 1,
) -> Any:
    """Returns the features of a ResNet with a 3x3 stem and no max pooling.

    Args:
        inputs: normalized images `(N, H, W, C)`.
        widths: the width of each stage. The first stage keeps the resolution,
            each later one halves it.
        blocks: the number of residual blocks of each stage.
        bottleneck: bool. Blocks are three convolutions (1x1, 3x3, 1x1) with
            four times as many outputs, instead of two 3x3 convolutions.
        stem_strides: int. 1 is the usual architecture for CIFAR.

    Returns:
        A tensor `(N, widths[-1])`, or four times as wide with `bottleneck`.

    Reference:
        - [He et al., 2015](https://arxiv.org/abs/1512.03385)
    """
    x = _conv(inputs, widths[0], 3, stem_strides, "stem")
    x = layers.ReLU(name="stem_relu")(x)
    block = _bottleneck_block if bottleneck else _basic_block
    for stage, (width, count) in enumerate(zip(widths, blocks), start=1):
        for i in range(1, count + 1):
            strides = 2 if stage > 1 and i == 1 else 1
            x = block(x, width, strides, f"stage{stage}_block{i}")
        # Gives the output of each stage a stable name.
        x = layers.Identity(name=f"stage{stage}")(x)
    return layers.GlobalAveragePooling2D(LAST, name="pool")(x)


def _conv(
    x: Any, width: int, kernel: int, strides: int, name: str
) -> keras.KerasTensor:
    # Explicit padding: "same" pads strided convolutions only on one side, which
    # differs from the papers and isn't symmetric under flips.
    if kernel == 3 and strides == 2:
        x = layers.ZeroPadding2D(1, LAST, name=f"{name}_pad")(x)
        padding = "valid"
    else:
        padding = "same"
    x = layers.Conv2D(
        width,
        kernel,
        strides=strides,
        padding=padding,
        data_format=LAST,
        use_bias=False,
        kernel_initializer="he_normal",
        name=f"{name}_conv",
    )(x)
    return layers.BatchNormalization(
        momentum=0.9, epsilon=1e-5, name=f"{name}_norm"
    )(x)


def _shortcut(x: Any, width: int, strides: int, name: str) -> Any:
    if strides == 1 and x.shape[-1] == width:
        return x
    return _conv(x, width, 1, strides, f"{name}_shortcut")


def _basic_block(x: Any, width: int, strides: int, name: str) -> Any:
    shortcut = _shortcut(x, width, strides, name)
    x = _conv(x, width, 3, strides, f"{name}_1")
    x = layers.ReLU(name=f"{name}_1_relu")(x)
    x = _conv(x, width, 3, 1, f"{name}_2")
    x = layers.Add(name=f"{name}_add")([x, shortcut])
    return layers.ReLU(name=f"{name}_relu")(x)


def _bottleneck_block(x: Any, width: int, strides: int, name: str) -> Any:
    shortcut = _shortcut(x, 4 * width, strides, name)
    x = _conv(x, width, 1, 1, f"{name}_1")
    x = layers.ReLU(name=f"{name}_1_relu")(x)
    x = _conv(x, width, 3, strides, f"{name}_2")
    x = layers.ReLU(name=f"{name}_2_relu")(x)
    x = _conv(x, 4 * width, 1, 1, f"{name}_3")
    x = layers.Add(name=f"{name}_add")([x, shortcut])
    return layers.ReLU(name=f"{name}_relu")(x)
