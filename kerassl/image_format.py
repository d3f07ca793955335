"""Keeps images channels last, whatever Keras's config says.

`keras.config.set_image_data_format("channels_first")` changes layers that are
made without a `data_format`: most when they are made, `Rescaling` when called.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import keras
import numpy as np

LAST, FIRST = "channels_last", "channels_first"
# The user's setting, while `channels_last` has another.
_USERS: ContextVar[str | None] = ContextVar("format", default=None)


@contextlib.contextmanager
def channels_last() -> Iterator[None]:
    """Context in which new layers are channels last by default.

    It is for layers that take no `data_format`, and for copies made from a
    config: KerasHub's backbones leave `data_format` out of theirs.
    """
    before = keras.config.image_data_format()
    token = _USERS.set(_USERS.get() or before)
    keras.config.set_image_data_format(LAST)
    try:
        yield
    finally:
        keras.config.set_image_data_format(before)
        _USERS.reset(token)


def pinned(model: Any) -> Any:
    """Makes the `Rescaling` layers of a model stay channels last.

    `Rescaling` has no `data_format`. If the config is channels first, it
    applies a scale of rank 1 to the first axis of an image, but takes one of
    rank 3 as it is. So scales get rank 3.

    Args:
        model: a layer or model, changed in place, with its inner models.

    Returns:
        The model.
    """
    if (_USERS.get() or keras.config.image_data_format()) == FIRST:
        for layer in flat_layers(model):
            if isinstance(layer, keras.layers.Rescaling):
                if np.ndim(layer.scale) == 1:
                    layer.scale = [[np.asarray(layer.scale).tolist()]]
    return model


def flat_layers(
    model: Any, whole: Callable[[Any], Any] = lambda layer: False
) -> Iterator[Any]:
    """Yields the layers of a model, with inner models replaced by their layers.

    Operations that are not layers, such as `x / 255`, are included.

    Args:
        model: a `keras.Model`, or a layer, which yields only itself.
        whole: function that returns whether to yield a model as it is.
    """
    inner = getattr(model, "operations", None) or getattr(model, "layers", None)
    if not isinstance(model, keras.Model) or not inner or whole(model):
        yield model
        return
    for layer in inner:
        yield from flat_layers(layer, whole)
