"""The array functions that views need.

`dataset.map(augmenter)` hands TensorFlow tensors over under any backend; views
are then made with TensorFlow's. It is there already: it made the tensors.

Two stand in for ways of `keras.ops` that make the host wait for a GPU under
PyTorch: a number among tensors, which is copied there each time, and `one_hot`,
which looks at its indices. `amax` and `amin` stand for `max` and `min`, which
`torch.compile` can't trace without a break.
"""

import sys
from types import SimpleNamespace
from typing import Any

import keras


def is_foreign(x: Any) -> bool:
    """Says whether `x` is a TensorFlow tensor while Keras runs on another."""
    # By the name, as `torch.compile` can't trace a call of TensorFlow's.
    module = type(x).__module__
    return module.startswith("tensorflow.") and not keras.ops.is_tensor(x)


def constant(xp: Any, value: float) -> Any:
    """Returns a float32 tensor of shape `()`, made on the device."""
    return xp.zeros((), "float32") + value


def one_hot(xp: Any, indices: Any, count: int) -> Any:
    """Returns float32 rows, `indices.shape + (count,)`, with one 1 in each."""
    places = xp.cast(xp.arange(count), "int32")
    return xp.cast(xp.cast(indices, "int32")[..., None] == places, "float32")


def tensorflow_namespace() -> Any:
    """Returns TensorFlow's functions under the names of `keras.ops`."""
    tf = sys.modules["tensorflow"]
    return SimpleNamespace(
        abs=tf.abs,
        amax=tf.reduce_max,
        amin=tf.reduce_min,
        arange=tf.range,
        argmax=tf.argmax,
        argsort=tf.argsort,
        cast=tf.cast,
        clip=tf.clip_by_value,
        concatenate=tf.concat,
        cos=tf.cos,
        exp=tf.exp,
        floor=tf.floor,
        matmul=tf.matmul,
        maximum=tf.maximum,
        mean=tf.reduce_mean,
        minimum=tf.minimum,
        reshape=tf.reshape,
        round=tf.round,
        shape=tf.shape,
        sin=tf.sin,
        sqrt=tf.sqrt,
        square=tf.square,
        stack=tf.stack,
        sum=tf.reduce_sum,
        transpose=tf.transpose,
        where=tf.where,
        zeros=tf.zeros,
        zeros_like=tf.zeros_like,
    )
