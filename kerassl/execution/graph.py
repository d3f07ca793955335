"""Graphs of layers as flat lists of PyTorch's functions."""

import functools
import inspect
from collections.abc import Callable
from operator import is_
from typing import Any, NamedTuple

import keras
import torch

from kerassl.execution.makers import MAKERS, Pass, Run, cast, torch_dtype
from kerassl.execution.moving import MovingStatistics
from kerassl.execution.pytorch import channels_last, channels_second
from kerassl.layers import MLPHead
from kerassl.networks import is_graph, replay


class Step(NamedTuple):
    """What one layer does.

    Attributes:
        run: function of the pass and of tensors.
        sources: where its inputs are.
        target: where its output goes.
        last: those of `sources` that nothing needs later.
    """

    run: Run
    sources: tuple[int, ...]
    target: int
    last: tuple[int, ...] = ()


class Graph:
    """Does what a network of layers does, without a Keras call a layer.

    A call of a Keras layer costs 0.2 to 0.8 ms of Python. Here each layer is
    a function of tensors, which reads the layer's variables, so that the
    network, its files, its gradients and its optimizer are Keras's as before.
    Feature maps stay `(N, C, H, W)` views of channels-last memory. A layer
    that isn't known, or does more than its class says, is called as always.

    Args:
        network: Functional or Sequential model, or `MLPHead`.
    """

    def __init__(self, network: keras.layers.Layer):
        self.network = network
        self.steps: list[Step] = []
        #: Names of the layers that Keras still calls.
        self.called: list[str] = []
        self._seen: list[tuple] = []
        self._dtype: torch.dtype | None = None

    def refresh(self) -> None:
        """Records the layers, if they are new or have changed."""
        if not self._seen or not all(map(_is_unchanged, self._seen)):
            self._record()

    def takes(self, inputs: Any) -> bool:
        """Returns whether it can stand in for a call with these inputs."""
        return (
            bool(self.steps)
            and isinstance(inputs, torch.Tensor)
            and inputs.ndim == self._rank
            and inputs.device.type != "meta"
        )

    def __call__(self, inputs: torch.Tensor, training: bool) -> torch.Tensor:
        """Runs all layers with the present values of their variables."""
        # A Functional model casts to the type of its input.
        x = inputs if self._dtype is None else cast(inputs, self._dtype)
        state = Pass(training, self._moving)
        values: list[Any] = [None] * (len(self.steps) + 1)
        values[0] = channels_second(x)
        for run, sources, target, last in self.steps:
            values[target] = run(state, *[values[i] for i in sources])
            for i in last:
                values[i] = None
        state.finish()
        return channels_last(values[self._output])

    def _record(self) -> None:
        self.steps, self.called = [], []
        self._seen = [_look(self.network)]
        self._moving = MovingStatistics()
        network = self.network
        if is_graph(network):
            model: Any = network
            given = keras.KerasTensor(
                model.inputs[0].shape, model.inputs[0].dtype
            )
            self._dtype = torch_dtype(given.dtype)
        else:
            given = keras.KerasTensor(
                (None, network.stack[0].kernel.shape[0]), network.compute_dtype
            )
            self._dtype = None
        self._rank = len(given.shape)
        try:
            self._output = self._inline(network, given, 0)
        except NotImplementedError:
            self.steps = []
            return
        self._note_last_uses()

    def _inline(
        self, network: Any, given: keras.KerasTensor, source: int
    ) -> int:
        """Adds a network's steps, and returns where its output is."""
        places: dict[int, int] = {}
        kept: list[Any] = []  # So that no id is given twice.

        def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
            # Keras fills in `mask=None`. A model's own `training` wins over
            # one that its graph fixes.
            kwargs = {
                k: v
                for k, v in kwargs.items()
                if v is not None and k != "training"
            }
            flat = keras.tree.flatten((args, kwargs))
            sources = [places[id(x)] for x in flat if _is_symbolic(x)]
            outputs = _Noted(layer)(*args, **kwargs)
            if not _is_symbolic(outputs):
                raise NotImplementedError("several outputs")
            if is_network(layer) and _is_plain(layer) and len(flat) == 1:
                self._seen.append(_look(layer))
                place = self._inline(layer, flat[0], sources[0])
            else:
                self._add(layer, args, kwargs, sources)
                place = len(self.steps)
            kept.append(outputs)
            places[id(outputs)] = place
            return outputs

        inputs = keras.Input(
            batch_shape=given.shape, dtype=given.dtype, name="inputs"
        )
        places[id(inputs)] = source
        kept.append(inputs)
        if is_graph(network):
            outputs = replay(network, inputs, call)
        else:
            outputs = inputs
            for layer in network.stack:
                outputs = call(layer, outputs)
        return places[id(outputs)]

    def _add(
        self, layer: Any, args: tuple, kwargs: dict, sources: list[int]
    ) -> None:
        run = None
        if self._knows(layer) and not kwargs:
            shapes = [x.shape for x in keras.tree.flatten(args)]
            run = MAKERS[type(layer)](layer, shapes, self._moving)
        if run is None:
            run = _called(layer, args, kwargs)
            self.called.append(layer.name)
        else:
            self._seen.append(_look(layer))
            if layer.autocast:
                run = _casting(run, torch_dtype(layer.compute_dtype))
        self.steps.append(Step(run, tuple(sources), len(self.steps) + 1))

    def _knows(self, layer: Any) -> bool:
        if type(layer) not in MAKERS or not _is_plain(layer):
            return False
        # Within a network's call Keras casts variables to the network's dtype,
        # except for those of batch normalization.
        if isinstance(layer, keras.layers.BatchNormalization):
            return True
        fits = layer.compute_dtype == self.network.compute_dtype
        return fits or not layer.variables

    def _note_last_uses(self) -> None:
        used = {self._output}
        for i in reversed(range(len(self.steps))):
            step = self.steps[i]
            last = tuple(set(step.sources) - used)
            used.update(last)
            self.steps[i] = step._replace(last=last)


class _Noted(keras.Operation):
    """Stands in for a layer, which would remember each symbolic call."""

    def __init__(self, layer: Any):
        super().__init__()
        self.layer = layer

    def call(self, *args: Any, **kwargs: Any) -> Any:
        return self.layer(*args, **kwargs)

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        return self.layer.compute_output_spec(*args, **kwargs)


def is_network(layer: Any) -> bool:
    """Returns whether a layer is nothing but a graph or chain of others."""
    if type(layer) is MLPHead:
        return True
    if not is_graph(layer):
        return False
    # A structure of one output isn't a Keras tensor.
    is_functional = type(layer).call is _functional_call()
    return (is_functional and _is_symbolic(layer.output)) or type(
        layer
    ).call is keras.Sequential.call


@functools.cache
def _functional_call() -> Callable:
    inputs = keras.Input((1,), name="inputs")
    return type(keras.Model(inputs, inputs, name="graph")).call


def _called(layer: Any, args: tuple, kwargs: dict) -> Run:
    """Returns a function that calls a layer as its graph does."""
    makes_masks = type(layer).__dict__.get("compute_mask") is not None
    if isinstance(layer, keras.layers.Layer) and makes_masks:
        raise NotImplementedError("masks between layers")
    takes_training = "training" in inspect.signature(layer.call).parameters
    structure = (args, kwargs)

    def run(state: Pass, *inputs: Any) -> Any:
        rest = iter(inputs)
        flat = [
            channels_last(next(rest)) if _is_symbolic(x) else x
            for x in keras.tree.flatten(structure)
        ]
        args, kwargs = keras.tree.pack_sequence_as(structure, flat)
        if takes_training:
            kwargs = {**kwargs, "training": state.training}
        return channels_second(layer(*args, **kwargs))

    return run


def _casting(run: Run, dtype: torch.dtype) -> Run:
    def casting(state: Pass, *inputs: torch.Tensor) -> torch.Tensor:
        return run(
            state,
            *[cast(x, dtype) if x.is_floating_point() else x for x in inputs],
        )

    return casting


def _is_symbolic(value: Any) -> bool:
    return isinstance(value, keras.KerasTensor)


def _is_plain(layer: Any) -> bool:
    """Returns whether a layer does nothing beside what its class says."""
    # Hooks and rematerialization have no public names to ask for.
    own = vars(layer)
    return not (
        {"call", "forward"} & set(own)
        or any(own[name] for name in own if name.endswith("hooks"))
        or any(own[name] for name in own if "remat" in name)
        or layer.activity_regularizer
        or layer.quantization_mode
        or getattr(layer, "lora_enabled", False)
        or getattr(layer, "data_format", None) == "channels_first"
    )


def _look(layer: Any) -> tuple:
    """Returns what tells whether a layer is still as it is now."""
    own = vars(layer)
    hooks = [own[name] for name in own if name.endswith("hooks")]
    return layer, list(own.values()), hooks


def _is_unchanged(seen: tuple) -> bool:
    layer, values, hooks = seen
    now = vars(layer).values()
    return (len(now) == len(values) and all(map(is_, now, values))) and not any(
        hooks
    )
