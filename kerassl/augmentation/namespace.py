"""The array functions of `keras.ops` that views need, in TensorFlow.

`dataset.map(augmenter)` hands TensorFlow tensors over under any backend; views
are then made with these. TensorFlow is there already: it made the tensors.
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


def tensorflow_namespace() -> Any:
    """Returns TensorFlow's functions under the names of `keras.ops`."""
    tf = sys.modules["tensorflow"]
    return SimpleNamespace(
        abs=tf.abs,
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
        max=tf.reduce_max,
        maximum=tf.maximum,
        mean=tf.reduce_mean,
        minimum=tf.minimum,
        one_hot=tf.one_hot,
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
    )
