"""The array functions that views need, for `keras.ops` and for TensorFlow.

`dataset.map(augmenter)` passes TensorFlow tensors under any backend, and views
are then made with TensorFlow. It is always imported by then: it made the
tensors.

`array`, `clip` and `one_hot` replace ways of `keras.ops` that make the host
wait for a GPU under PyTorch: numbers among tensors, which are copied to the
device each time, and `keras.ops.one_hot`, which reads its indices. Use `amax`
and `amin`: `torch.compile` can't trace `keras.ops.max` and `min` without a
break.
"""

import sys
from typing import Any

import keras
import numpy as np


def is_foreign(x: Any) -> bool:
    """Says whether `x` is a TensorFlow tensor while Keras runs on another."""
    # By name: `torch.compile` can't trace a call into TensorFlow.
    module = type(x).__module__
    return module.startswith("tensorflow.") and not keras.ops.is_tensor(x)


def _is_torch(xp: Any) -> bool:
    return xp is keras.ops and keras.backend.backend() == "torch"


def array(xp: Any, values: Any, like: Any) -> Any:
    """Returns numbers as a float32 tensor; PyTorch sends them only once.

    Args:
        xp: namespace of array functions.
        values: number, or tuple of numbers or of such tuples.
        like: tensor on the device where the result is needed.
    """
    if not _is_torch(xp):
        return xp.cast(np.array(values, "float32"), "float32")
    import torch

    key = values, like.device
    if key in _SENT:
        return _SENT[key]
    made = torch.tensor(values, dtype=torch.float32, device=like.device)
    if not torch.compiler.is_compiling():
        # Inside a compiled function this would make it compile once more.
        _SENT[key] = made
    return made


_SENT: dict = {}


def clip(xp: Any, x: Any, low: float, high: float) -> Any:
    """Returns a tensor's values, limited to a range of numbers."""
    if _is_torch(xp):
        # PyTorch has a quicker way for numbers than for tensors.
        return x.clamp(low, high)
    return xp.clip(x, low, high)


def one_hot(xp: Any, indices: Any, count: int) -> Any:
    """Returns float32 rows, `indices.shape + (count,)`, with one 1 in each."""
    positions = array(xp, tuple(range(count)), indices)
    indices = xp.cast(indices, "float32")
    return xp.cast(indices[..., None] == positions, "float32")


class TensorFlowNamespace:
    """TensorFlow's functions under the names and arguments of `keras.ops`.

    Has the functions that pipelines usually need. The name of another raises
    an `AttributeError` that lists them.
    """

    def __init__(self) -> None:
        tf = sys.modules["tensorflow"]
        self.__dict__.update(
            abs=tf.abs,
            all=tf.reduce_all,
            amax=tf.reduce_max,
            amin=tf.reduce_min,
            any=tf.reduce_any,
            arange=tf.range,
            argmax=tf.argmax,
            argsort=tf.argsort,
            cast=tf.cast,
            ceil=tf.math.ceil,
            clip=tf.clip_by_value,
            concatenate=tf.concat,
            cos=tf.cos,
            exp=tf.exp,
            expand_dims=tf.expand_dims,
            flip=lambda x, axis: tf.reverse(x, [axis]),
            floor=tf.floor,
            log=tf.math.log,
            logical_and=tf.logical_and,
            logical_not=tf.logical_not,
            logical_or=tf.logical_or,
            matmul=tf.matmul,
            maximum=tf.maximum,
            mean=tf.reduce_mean,
            minimum=tf.minimum,
            ones=tf.ones,
            ones_like=tf.ones_like,
            power=tf.pow,
            prod=tf.reduce_prod,
            reshape=tf.reshape,
            roll=tf.roll,
            round=tf.round,
            shape=tf.shape,
            sigmoid=tf.sigmoid,
            sign=tf.sign,
            sin=tf.sin,
            sort=tf.sort,
            sqrt=tf.sqrt,
            square=tf.square,
            squeeze=tf.squeeze,
            stack=tf.stack,
            std=tf.math.reduce_std,
            sum=tf.reduce_sum,
            take=tf.gather,
            tan=tf.tan,
            tanh=tf.tanh,
            tile=tf.tile,
            transpose=tf.transpose,
            var=tf.math.reduce_variance,
            where=tf.where,
            zeros=tf.zeros,
            zeros_like=tf.zeros_like,
        )

    def __getattr__(self, name: str) -> Any:
        """Raises an error that lists the functions."""
        raise AttributeError(
            f"`tf.data` pipelines of kerassl have no `xp.{name}`. They have: "
            f"{', '.join(sorted(vars(self)))}."
        )
