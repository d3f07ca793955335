"""The methods that the contract tests run: add a line for a new one."""

import keras
from keras import layers

import kerassl


def tiny_encoder(image_shape=(28, 28, 1)):
    """A convolution, batch normalization and a pool: quick everywhere."""
    inputs = keras.Input(image_shape)
    x = layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    x = layers.Conv2D(16, 7, strides=4, use_bias=False)(x)
    x = layers.BatchNormalization(momentum=0.9)(x)
    x = layers.ReLU()(x)
    x = layers.Conv2D(24, 3, strides=2)(x)
    x = layers.ReLU()(x)
    return keras.Model(inputs, layers.GlobalAveragePooling2D()(x))


def simclr(encoder, **kwargs):
    return kerassl.SimCLR(encoder, temperature=0.5, projection_dim=8, **kwargs)


METHODS = {"simclr": simclr}
