"""Lending layers another class for the duration of a step."""

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras

from kerassl.execution.asked import asked_once
from kerassl.execution.attention import MultiHeadAttention
from kerassl.execution.batch_norm import (
    BatchNormalization,
    GlobalBatchNormalization,
)
from kerassl.execution.convolution import Conv2D
from kerassl.execution.rescaling import Rescaling
from kerassl.layers import DINOHead, MomentumNetwork, Prototypes
from kerassl.layers.dino_head import WeightNormDense
from kerassl.networks import all_layers


@contextlib.contextmanager
def lent(
    model: keras.layers.Layer, over_devices: bool = False
) -> Iterator[None]:
    """Runs the layers of a model as it is best on this backend.

    It changes the class of layers, including KerasHub's, to one that computes
    the same. The class is restored on exit, so files contain plain Keras
    layers.

    - On PyTorch networks run without a Keras call a layer (see `Graph`), and
      a `LentModel` collects its weights once. In layers outside of such
      networks batch normalization is PyTorch's own, convolutions don't copy
      their input to another layout first, and rescaling sends no numbers.
    - On TensorFlow and PyTorch, batch normalization may use the statistics of
      the global batch. On JAX the step sees the global batch anyway.
    - On JAX, attention may use cuDNN for odd numbers of tokens, too.

    Args:
        model: layer or model.
        over_devices: bool. Whether batch normalization uses the statistics of
            all devices in training.
    """
    with _swapped(_remembered(model, over_devices)):
        yield


def lending(
    model: keras.Model, function: Callable, over_devices: bool = False
) -> Callable:
    """Returns a function that runs while a model is `lent`.

    Args:
        model: `keras.Model`.
        function: callable, such as `model.train_function`. One that lends
            already is returned as it is.
        over_devices: as in `lent`.
    """
    if not _classes(over_devices) or hasattr(function, "lends"):
        return function

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        with lent(model, over_devices):
            return function(*args, **kwargs)

    run.lends = True  # type: ignore[attr-defined]
    return run


class LentModel(keras.Model):
    """A model that is `lent` while it trains, is evaluated and predicts."""

    #: The `over_devices` of `lent` in training.
    global_batch_norm: bool = False
    #: The methods that PyTorch compiles with `jit_compile=True`, instead of
    #: Keras's steps, which it would take apart.
    compiled_parts: tuple[str, ...] = ()
    # Keras's, which it makes per `compile`.
    train_function: Any
    test_function: Any
    predict_function: Any

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Configures the model, as `keras.Model.compile` does."""
        super().compile(*args, **kwargs)
        # Its metrics are others now.
        self.__dict__.pop("_lent", None)

    def untracked_networks(self) -> Sequence[keras.Model]:
        """Returns networks that Keras isn't to find, but that are lent too."""
        return ()

    def make_train_function(self, force: bool = False) -> Any:
        """Makes the function that `fit` and `train_on_batch` call per step."""
        with self._uncompiled():
            super().make_train_function(force)
        if keras.backend.backend() == "torch" and self.optimizer.built:
            if not hasattr(self.train_function, "lends"):
                from kerassl.execution import pytorch

                pytorch.store([*self.variables, *self.optimizer.variables])
        self.train_function = lending(
            self, self.train_function, over_devices=self.global_batch_norm
        )

    def make_test_function(self, force: bool = False) -> Any:
        """Makes the function that `evaluate` calls per step."""
        with self._uncompiled():
            super().make_test_function(force)
        self.test_function = lending(self, self.test_function)

    def make_predict_function(self, force: bool = False) -> Any:
        """Makes the function that `predict` calls per step."""
        with self._uncompiled():
            super().make_predict_function(force)
        self.predict_function = lending(self, self.predict_function)

    @contextlib.contextmanager
    def _uncompiled(self) -> Iterator[None]:
        """Keeps Keras from compiling what contains the `compiled_parts`."""
        if keras.backend.backend() != "torch" or not self.compiled_parts:
            yield
            return
        before: Any = getattr(self, "jit_compile")
        self.jit_compile = False
        try:
            yield
        finally:
            self.jit_compile = before


class _Memory:
    """What a model was last lent. Keras copies and saves none of it."""

    def __init__(self) -> None:
        #: For `over_devices`, the model's layers, and the classes of all.
        self.found: dict[bool, tuple[list, list]] = {}


def _remembered(
    model: keras.layers.Layer, over_devices: bool
) -> list[tuple[keras.layers.Layer, type]]:
    """Returns what to lend, looked up again if the model has other layers."""
    memory = vars(model).get("_lent")
    if memory is None:
        memory = _Memory()
        # Neither Keras nor PyTorch needs to know.
        object.__setattr__(model, "_lent", memory)
    # The layers themselves, since an `id` may be given twice.
    present = [model, *getattr(model, "layers", [])]
    known, pairs = memory.found.get(over_devices, ([], []))
    if len(known) != len(present) or any(map(_differ, known, present)):
        pairs = _found(model, over_devices)
        memory.found[over_devices] = present, pairs
    return pairs


def _differ(one: Any, other: Any) -> bool:
    return one is not other


def _found(
    model: keras.layers.Layer, over_devices: bool
) -> list[tuple[keras.layers.Layer, type]]:
    """Returns layers with the classes to lend to them."""
    classes = _classes(over_devices)
    also = model.untracked_networks() if isinstance(model, LentModel) else ()
    layers = all_layers([model, *also]) if classes else []
    # A subclass may do more than the class, and keeps it.
    pairs = [
        (layer, classes[type(layer)])
        for layer in layers
        if type(layer) in classes
    ]
    if keras.backend.backend() == "torch":
        pairs += [
            (network, _running(network)) for network in _networks(model, layers)
        ]
        running = {id(layer) for layer, _ in pairs}
        pairs += [
            (layer, _traced(layer))
            for layer in layers
            if type(layer) in TRACED and id(layer) not in running
        ]
        if isinstance(model, LentModel):
            pairs.append((model, asked_once(model)))
    return pairs


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


def _networks(model: Any, layers: list[keras.layers.Layer]) -> list[Any]:
    """Returns the networks that a model calls."""
    from kerassl.execution.blocks import is_known
    from kerassl.execution.graph import is_network

    networks = [layer for layer in layers if is_network(layer)]
    # It runs the parts of a network with the network, unless it has them too.
    parts = {
        id(layer)
        for network in networks
        if not isinstance(network, MomentumNetwork)
        for layer in all_layers(network)
        if layer is not network
    }
    if not is_network(model):
        parts -= {id(layer) for layer in getattr(model, "layers", [])}
    # What Keras calls there, such as a layer of one's own, calls its parts.
    running = {id(network) for network in networks} | {id(model)}
    parts -= {
        id(part)
        for layer in layers
        if id(layer) not in running and not is_known(layer)
        for part in all_layers(layer)
    }
    return [network for network in networks if id(network) not in parts]


def _running(network: Any) -> type:
    """Returns a class for one network, which runs its graph."""
    from kerassl.execution.graph import Graph

    kind, graph = type(network), Graph(network)
    takes_training = "training" in inspect.signature(kind.call).parameters

    def is_usual(inputs: Any, args: tuple, kwargs: dict) -> bool:
        # Without `training` the graph may fix it, unless nothing depends on it.
        if args or (takes_training and kwargs.get("training") is None):
            return False
        others = [kwargs[name] for name in kwargs if name != "training"]
        return all(x is None for x in others) and graph.takes(inputs)

    def call(self: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if is_usual(inputs, args, kwargs):
            return graph(inputs, bool(kwargs.get("training")))
        return kind.call(self, inputs, *args, **kwargs)

    def call_at_once(self: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        # Layers that Keras calls may look for its context.
        if graph.is_whole and is_usual(inputs, args, kwargs):
            return graph(inputs, bool(kwargs.get("training")))
        return kind.__call__(self, inputs, *args, **kwargs)

    contents = {
        "__module__": kind.__module__,
        "__doc__": kind.__doc__,
        "__call__": call_at_once,
        "call": call,
        "_kerassl_kind": kind,
        "graph": graph,
        "refresh": graph.refresh,
    }
    return type(kind.__name__, (kind,), contents)


# What methods call besides networks.
TRACED = (DINOHead, MomentumNetwork, Prototypes, WeightNormDense)


def _traced(layer: Any) -> type:
    """Returns a class for one layer, whose call PyTorch's compiler can trace.

    It can't trace Keras's.
    """
    from kerassl.execution.blocks import is_plain

    kind: Any = type(layer)
    takes_training = "training" in inspect.signature(kind.call).parameters

    def call_at_once(self: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        is_known = not takes_training or kwargs.get("training") is not None
        if not (own.is_plain and is_known and _is_traced()):
            return kind.__call__(self, inputs, *args, **kwargs)
        if self.autocast:
            inputs = keras.ops.cast(inputs, self.compute_dtype)
        return self.call(inputs, *args, **kwargs)

    def refresh() -> None:
        own.is_plain = is_plain(layer)

    contents = {
        "__module__": kind.__module__,
        "__doc__": kind.__doc__,
        "__call__": call_at_once,
        "is_plain": False,
        "refresh": staticmethod(refresh),
    }
    own: Any = type(kind.__name__, (kind,), contents)
    return own


def _is_traced() -> bool:
    import torch

    return torch.compiler.is_compiling()


@contextlib.contextmanager
def _swapped(pairs: list[tuple[keras.layers.Layer, type]]) -> Iterator[None]:
    before = [(layer, type(layer)) for layer, _ in pairs]
    try:
        for layer, kind in pairs:
            object.__setattr__(layer, "__class__", kind)
        for _, kind in pairs:
            if hasattr(kind, "refresh"):
                kind.refresh()
        yield
    finally:
        for layer, kind in before:
            object.__setattr__(layer, "__class__", kind)
