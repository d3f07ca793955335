"""Features of images, in inference mode."""

from typing import Any

import keras
import numpy as np

from kerassl.data import ImageData, check_images


def embed(
    encoder: keras.Model,
    images: Any,
    batch_size: int = 256,
    verbose: int | str = 0,
) -> np.ndarray:
    """Returns the features of images, in inference mode.

    Args:
        encoder: `keras.Model` from images to features.
        images: array `(N, H, W, C)`, uint8 or float in [0, 255]; or what
            `kerassl.data.load` returns; or a data set as
            `keras.Model.predict` takes it.
        batch_size: int, for arrays.
        verbose: as in `keras.Model.predict`.

    Returns:
        A float32 NumPy array `(N, D)`.

    Raises:
        ValueError: if the images have another shape or range.
    """
    if isinstance(images, ImageData):
        images = images.batches(batch_size)
    elif hasattr(images, "shape"):
        check_images(images)
    features = encoder.predict(images, batch_size=batch_size, verbose=verbose)
    return np.asarray(features, dtype="float32")


def image_size(encoder: keras.Model) -> int:
    """Returns the height (and width) of the images that an encoder takes.

    Args:
        encoder: `keras.Model` with a known, square input.

    Returns:
        An int, in pixels.

    Raises:
        ValueError: if the input is of open size, or not square.
    """
    height, width = encoder.input_shape[1:3]
    if height is None or height != width:
        raise ValueError(
            f"The encoder takes images of shape {encoder.input_shape[1:]}. "
            "Views are square and of a known size: give the encoder a square "
            "`image_shape`, or give an `augmenter`."
        )
    return height
