"""Views that an encoder can take."""

import inspect
from collections.abc import Callable
from typing import Any

import keras

from kerassl import encoders
from kerassl.augmentation.multi_crop import local_size_of


def views_for(
    encoder: keras.Model, make_views: Callable, **settings: Any
) -> keras.layers.Layer:
    """Makes an augmenter at an encoder's image size.

    Sizes that are computed can be split into a ViT's patches.

    Args:
        encoder: `keras.Model` from images to features.
        make_views: a function of `kerassl.augmentation`, from the size of the
            views and other settings to an augmenter.
        **settings: arguments of it, which win. `size` may also be
            `{"share": 0.5}`, a share of the encoder's image size.

    Returns:
        A layer from images to a dict of views.
    """
    patch = encoders.patch_size(encoder)
    size = settings.pop("size", None)
    if size is None:
        size = encoders.image_size(encoder)
    elif isinstance(size, dict):
        share = size["share"] * encoders.image_size(encoder)
        size = patch * max(1, round(share / patch))
    if (
        "local_size" in inspect.signature(make_views).parameters
        and settings.get("local_size") is None
    ):
        settings["local_size"] = local_size_of(size, patch)
    return make_views(size, **settings)
