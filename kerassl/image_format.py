"""Images are channels last here, whatever Keras's config says.

`keras.config.set_image_data_format("channels_first")` changes what layers do
that don't say their format: some when they are made, `Rescaling` when called.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import keras
import numpy as np

LAST, FIRST = "channels_last", "channels_first"
# What the config says outside of `channels_last`.
_USERS: ContextVar[str | None] = ContextVar("format", default=None)


@contextlib.contextmanager
def channels_last() -> Iterator[None]:
    """Makes layers in channels last, those that don't take a `data_format`.

    KerasHub's backbones leave it out of their config, and copies are made of
    that.
    """
    before = keras.config.image_data_format()
    token = _USERS.set(_USERS.get() or before)
    keras.config.set_image_data_format(LAST)
    try:
        yield
    finally:
        keras.config.set_image_data_format(before)
        _USERS.reset(token)


def remade(model: keras.Model) -> Any:
    """Returns a model made of another's config, with new weights."""
    with channels_last():
        new = type(model).from_config(model.get_config())
    return pinned(new)


def pinned(model: Any) -> Any:
    """Returns a model whose `Rescaling` layers keep to channels last.

    Such a layer has no `data_format`. Where the config says channels first, it
    turns a scale of rank 1 at each call, and leaves one of rank 3 as it is.

    Args:
        model: a layer or model, of which the inner models are looked at too.
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
    """Yields a model's layers, and those of its inner models instead of them.

    Operations that are not layers, such as `x / 255`, are among them.

    Args:
        model: a layer, which yields itself, or `keras.Model`.
        whole: which models to yield as they are.
    """
    inner = getattr(model, "operations", None) or getattr(model, "layers", None)
    if not isinstance(model, keras.Model) or not inner or whole(model):
        yield model
        return
    for layer in inner:
        yield from flat_layers(layer, whole)
