"""Lending layers another class for the duration of a step."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import keras

from kerassl.execution.attention import MultiHeadAttention
from kerassl.execution.batch_norm import (
    BatchNormalization,
    GlobalBatchNormalization,
)
from kerassl.execution.convolution import Conv2D
from kerassl.execution.rescaling import Rescaling
from kerassl.networks import all_layers


@contextlib.contextmanager
def lent(
    model: keras.layers.Layer, over_devices: bool = False
) -> Iterator[None]:
    """Runs the layers of a model as it is best on this backend.

    It changes the class of layers, including KerasHub's, to one that computes
    the same. The class is restored on exit, so files contain plain Keras
    layers.

    - On PyTorch, batch normalization is PyTorch's own, convolutions don't copy
      their input to another layout first, and rescaling sends no numbers.
    - On TensorFlow and PyTorch, batch normalization may use the statistics of
      the global batch. On JAX the step sees the global batch anyway.
    - On JAX, attention may use cuDNN for odd numbers of tokens, too.

    Args:
        model: layer or model.
        over_devices: bool. Whether batch normalization uses the statistics of
            all devices in training.
    """
    with _swapped(_found(model, _classes(over_devices))):
        yield


def lending(
    model: keras.Model, function: Callable, over_devices: bool = False
) -> Callable:
    """Returns a function that runs while a model is `lent`.

    It is for a function that runs for each batch: layers are looked up once,
    and again when others have taken the place of the model's own.

    Args:
        model: `keras.Model`.
        function: callable, such as `model.train_function`. One that lends
            already is returned as it is.
        over_devices: as in `lent`.
    """
    classes = _classes(over_devices)
    if not classes or hasattr(function, "lends"):
        return function
    known: list[Any] = []
    pairs: list[tuple[keras.layers.Layer, type]] = []

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        nonlocal known, pairs
        # The layers themselves, since an `id` may be given twice.
        present = model.layers
        if len(known) != len(present) or any(map(_differ, known, present)):
            known, pairs = present, _found(model, classes)
        with _swapped(pairs):
            return function(*args, **kwargs)

    run.lends = True  # type: ignore[attr-defined]
    return run


def _differ(one: Any, other: Any) -> bool:
    return one is not other


def _classes(over_devices: bool) -> dict[type, type]:
    """Returns which class is lent in place of which."""
    norm = GlobalBatchNormalization if over_devices else BatchNormalization
    if keras.backend.backend() == "torch":
        return {
            keras.layers.BatchNormalization: norm,
            keras.layers.Conv2D: Conv2D,
            keras.layers.Rescaling: Rescaling,
        }
    if keras.backend.backend() == "tensorflow" and over_devices:
        return {keras.layers.BatchNormalization: norm}
    if keras.backend.backend() == "jax":
        return {keras.layers.MultiHeadAttention: MultiHeadAttention}
    return {}


def _found(
    model: keras.layers.Layer, classes: dict[type, type]
) -> list[tuple[keras.layers.Layer, type]]:
    # A subclass may do more than the class, and keeps it.
    return [
        (layer, classes[type(layer)])
        for layer in (all_layers(model) if classes else ())
        if type(layer) in classes
    ]


@contextlib.contextmanager
def _swapped(pairs: list[tuple[keras.layers.Layer, type]]) -> Iterator[None]:
    before = [(layer, type(layer)) for layer, _ in pairs]
    try:
        for layer, kind in pairs:
            object.__setattr__(layer, "__class__", kind)
        yield
    finally:
        for layer, kind in before:
            object.__setattr__(layer, "__class__", kind)
