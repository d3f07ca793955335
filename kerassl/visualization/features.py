"""Encoders, images and features, checked before anything is drawn."""

import dataclasses
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from kerassl import encoders
from kerassl.data import ImageData, check_images
from kerassl.data.photos import Photos
from kerassl.evaluation.checks import unit_rows
from kerassl.evaluation.labels import encode_labels, label_array
from kerassl.networks import trained_encoder
from kerassl.visualization.figures import plain


def encoder_of(model: Any) -> keras.Model:
    """Returns the encoder of a model, or an encoder itself.

    Raises:
        ValueError: if it is neither.
    """
    if isinstance(model, (str, Path)):
        raise ValueError(
            "Pictures are drawn of a model or an encoder. Load it first: "
            f"`kerassl.load_encoder({str(model)!r})`."
        )
    return encoders.as_encoder(trained_encoder(model))


def labeled(name: str, images: Any, labels: Any = None) -> ImageData:
    """Returns images with their labels, if there are any.

    Args:
        name: str, the name of the images in error messages.
        images: array `(N, H, W, C)`, or `ImageData`.
        labels: array `(N,)` or `(N, 1)`, as in `kerassl.evaluation.knn`;
            by default those of `ImageData`.

    Raises:
        ValueError: if the shape, dtype or range of the images is wrong, or
            the number of labels.
    """
    if not isinstance(images, ImageData):
        check_images(images, name)
        if not isinstance(images, Photos):
            images = ops.convert_to_numpy(images)
        images = ImageData(images)
    if labels is None:
        labels = images.labels
    else:  # They needn't be the classes that have these names.
        images = dataclasses.replace(images, class_names=None)
    if labels is not None:
        what = f"labels of {name}"
        labels = label_array(labels, what, len(images.images))
        classes, (numbers,) = encode_labels({what: labels})
        fit = all(isinstance(c, int) and abs(c) < 2**63 for c in classes)
        values = np.array(classes, "int64" if fit else "object")
        images = dataclasses.replace(images, labels=values[numbers])
    return images


def features_of(encoder: keras.Model, name: str, data: ImageData) -> np.ndarray:
    """Returns the features of images as a float32 array `(N, D)`.

    Raises:
        ValueError: if the images don't fit the encoder, or the features
            aren't finite.
    """
    # Labels may be strings, which backends can't hold.
    features = encoders.embed(encoder, dataclasses.replace(data, labels=None))
    unit(name, features)
    return features


def unit(name: str, features: Any) -> np.ndarray:
    """Returns features scaled to length 1.

    Args:
        name: str, the name of the features in error messages.
        features: float array `(N, D)`.

    Raises:
        ValueError: if the features have another shape or aren't finite.
    """
    x = np.asarray(features, "float32")
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(
            f"Features must have the shape (N, D). Received: {x.shape}"
        )
    finite = np.isfinite(x).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"{np.sum(~finite)} of {len(x)} features of `{name}` aren't "
            "finite: the encoder's weights are NaN or infinite."
        )
    return unit_rows(x)


def class_name(data: ImageData, label: int | str) -> str:
    """Returns a short name for a label of `data`."""
    if isinstance(label, str):
        return plain(label)
    # Some data sets give images without a class the label -1.
    if data.class_names is None or not 0 <= label < len(data.class_names):
        return f"label {label}"
    return plain(data.class_names[label])
