"""Graphs of layers as flat lists of PyTorch's functions."""

import functools
import inspect
from collections import Counter
from collections.abc import Callable, Iterator
from operator import is_
from typing import Any, NamedTuple

import keras
import torch

from kerassl.execution.blocks import input_shape, is_plain, kind_of, make
from kerassl.execution.makers import (
    OVERWRITING,
    OVERWRITTEN,
    Pass,
    Run,
    cast,
    torch_dtype,
)
from kerassl.execution.moving import MovingStatistics
from kerassl.execution.pytorch import channels_last, channels_second
from kerassl.layers import MomentumNetwork
from kerassl.networks import all_layers, is_graph, replay


class Step(NamedTuple):
    """What one layer does.

    Attributes:
        run: function of the pass and of tensors.
        sources: where its inputs are.
        target: where its output goes.
        layer: the layer, unless Keras calls it.
        shapes: of its inputs.
        last: those of `sources` that nothing needs later.
    """

    run: Run
    sources: tuple[int, ...]
    target: int
    layer: Any = None
    shapes: Any = ()
    last: tuple[int, ...] = ()


class Graph:
    """Does what a network of layers does, without a Keras call a layer.

    A call of a Keras layer costs 0.2 to 0.8 ms of Python. Here each layer is
    a function of tensors, which reads the layer's variables, so that the
    network, its files, its gradients and its optimizer are Keras's as before.
    Feature maps stay `(N, C, H, W)` views of channels-last memory. A layer
    that isn't known, or does more than its class says, is called as always.

    Args:
        network: Functional or Sequential model, one of the layers with an
            `input_shape` in `blocks`, or a `MomentumNetwork` of one of these.
    """

    def __init__(self, network: keras.layers.Layer):
        self.network = network
        self.steps: list[Step] = []
        #: Names of the layers that Keras still calls.
        self.called: list[str] = []
        #: Whether a call does nothing else, and Keras calls none of the layers.
        self.is_whole = False
        self._seen: list[tuple] = []
        # The tensors of variables, by their ids.
        self._known: dict[int, torch.Tensor] = {}
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
            and len(inputs.shape) == len(self._shape)
            and inputs.device.type != "meta"
            and all(
                known is None or size == known
                for size, known in zip(inputs.shape, self._shape)
            )
        )

    def __call__(self, inputs: torch.Tensor, training: bool) -> torch.Tensor:
        """Runs all layers with the present values of their variables."""
        if self._follows:
            with torch.no_grad():
                return self._run(inputs, training)
        return self._run(inputs, training)

    def _run(self, inputs: torch.Tensor, training: bool) -> torch.Tensor:
        # A Functional model casts to the type of its input.
        x = inputs if self._dtype is None else cast(inputs, self._dtype)
        state = Pass(training, self._moving, self._known)
        values = {0: channels_second(x)}
        for step in self.steps:
            given = [values[i] for i in step.sources]
            values[step.target] = step.run(state, *given)
            for i in step.last:
                del values[i]
        state.finish()
        return channels_last(values[self._output])

    def _record(self) -> None:
        network: Any = self.network
        self.steps, self.called, self.is_whole = [], [], False
        self._known = {}
        self._calls_layers = False
        self._seen = [_look(network)]
        is_alone = is_plain(network)
        self._follows = kind_of(network) is MomentumNetwork
        if self._follows:
            network = network.network
            self._seen.append(_look(network))
            is_alone &= is_plain(network)
        self._compute_dtype = network.compute_dtype
        self._moving = MovingStatistics()
        shape = input_shape(network)
        if shape is not None:
            self._shape, self._output = shape, 1
            run = self._make(network, [shape])
            if run is not None and is_alone:
                self.steps = [Step(run, (0,), 1)]
                self.is_whole = True
            return
        given = network.inputs[0]
        self._shape, self._dtype = given.shape, torch_dtype(given.dtype)
        try:
            self._output = self._inline(network, given, 0)
        except NotImplementedError:
            self.steps = []
            return
        self._leave_padding()
        self._note_last_uses()
        self._overwrite()
        self.is_whole = is_alone and not self._calls_layers
        if self._follows and not self.is_whole:
            # The network that it holds has a graph of its own.
            self.steps = []

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
            if _runs_its_graph(layer) and is_plain(layer) and len(flat) == 1:
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
        return places[id(replay(network, inputs, call))]

    def _add(
        self, layer: Any, args: tuple, kwargs: dict, sources: list[int]
    ) -> None:
        flat = keras.tree.flatten(args)
        run, made, shapes = None, layer, []
        if not kwargs and all(map(_is_symbolic, flat)):
            shapes = [x.shape for x in flat]
            run = self._make(layer, shapes)
        if run is None:
            run, made = _called(layer, args, kwargs), None
            self.called.append(layer.name)
            self._calls_layers |= isinstance(layer, keras.layers.Layer)
        target = len(self.steps) + 1
        self.steps.append(Step(run, tuple(sources), target, made, shapes))

    def _make(self, layer: Any, shapes: list, **options: Any) -> Run | None:
        if not isinstance(layer, keras.layers.Layer):
            return None
        run = make(layer, shapes, self._moving, self._compute_dtype, **options)
        if run is not None and not options:
            self._seen += map(_look, all_layers(layer))
        return run

    def _leave_padding(self) -> None:
        """Lets convolutions add the zeros, which costs them nothing."""
        before = {step.target: step for step in self.steps}
        for i, step in enumerate(self.steps):
            pad = before.get(step.sources[0])
            added = pad and _added(pad.layer, step.layer)
            if pad and added:
                run = self._make(step.layer, step.shapes, added=added)
                if run is not None:
                    self.steps[i] = step._replace(run=run, sources=pad.sources)

    def _note_last_uses(self) -> None:
        """Drops steps that nothing needs, and frees memory early."""
        used, steps = {self._output}, []
        for step in reversed(self.steps):
            if step.target in used:
                last = tuple(set(step.sources) - used)
                used.update(last)
                steps.append(step._replace(last=last))
        self.steps = steps[::-1]

    def _overwrite(self) -> None:
        """Lets sums and ReLUs write into memory that nothing else needs."""
        uses = Counter(i for step in self.steps for i in step.sources)
        uses[self._output] += 1
        free = {
            step.target
            for step in self.steps
            if isinstance(step.layer, OVERWRITTEN) and uses[step.target] == 1
        }
        for i, step in enumerate(self.steps):
            if not isinstance(step.layer, OVERWRITING):
                continue
            # A sum of two may begin with the second.
            first = sorted(step.sources[:2], key=lambda i: i not in free)
            if first[0] in free:
                run = self._make(step.layer, step.shapes, overwrite=True)
                sources = (*first, *step.sources[2:])
                self.steps[i] = step._replace(
                    run=run or step.run, sources=sources
                )


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
    if type(layer) is MomentumNetwork:
        return is_network(layer.network)
    return input_shape(layer) is not None or _runs_its_graph(layer)


def _added(pad: Any, layer: Any) -> tuple[int, int] | None:
    """Returns the zeros that a layer adds for a convolution on each side."""
    if not (
        kind_of(pad) is keras.layers.ZeroPadding2D
        and isinstance(layer, keras.layers.Conv2D)
        and layer.padding == "valid"
        and pad.compute_dtype == layer.compute_dtype
    ):
        return None
    (top, bottom), (left, right) = pad.padding
    return (top, left) if (top, left) == (bottom, right) else None


def _runs_its_graph(model: Any) -> bool:
    if not is_graph(model):
        return False
    # A structure of one output isn't a Keras tensor.
    if type(model).call is _functional_call():
        return _is_symbolic(model.output)
    return type(model).call is keras.Sequential.call


@functools.cache
def _functional_call() -> Callable:
    inputs = keras.Input((1,), name="inputs")
    return type(keras.Model(inputs, inputs, name="graph")).call


def _called(layer: Any, args: tuple, kwargs: dict) -> Run:
    """Returns a function that calls a layer as its graph does."""
    makers = (keras.layers.Masking, keras.layers.Embedding)
    if isinstance(layer, makers) or "compute_mask" in vars(type(layer)):
        raise NotImplementedError("masks between layers")
    takes_training = "training" in inspect.signature(layer.call).parameters
    # PyTorch's compiler can't trace Keras's call of an operation.
    function = layer if isinstance(layer, keras.layers.Layer) else layer.call

    def run(state: Pass, *inputs: Any) -> Any:
        rest = map(channels_last, inputs)
        given, options = _filled(args, rest), _filled(kwargs, rest)
        if takes_training:
            options["training"] = state.training
        return channels_second(function(*given, **options))

    return run


def _filled(structure: Any, values: Iterator) -> Any:
    """Returns a structure with values in place of its Keras tensors.

    PyTorch's compiler can't trace Keras's own functions for structures.
    """
    if _is_symbolic(structure):
        return next(values)
    if isinstance(structure, (list, tuple)):
        return type(structure)([_filled(x, values) for x in structure])
    if isinstance(structure, dict):
        # As Keras orders them.
        return {k: _filled(structure[k], values) for k in sorted(structure)}
    return structure


def _is_symbolic(value: Any) -> bool:
    return isinstance(value, keras.KerasTensor)


def _look(layer: Any) -> tuple:
    """Returns what tells whether a layer is still as it is now."""
    own = vars(layer)
    hooks = [own[name] for name in own if name.endswith("hooks")]
    return layer, list(own.values()), hooks, any(hooks)


def _is_unchanged(seen: tuple) -> bool:
    layer, values, hooks, had_hooks = seen
    own = vars(layer)
    if len(own) != len(values) or any(hooks) != had_hooks:
        return False
    if all(map(is_, own.values(), values)):
        return True
    # PyTorch's `training` changes in each `fit`, and Keras's layers don't ask.
    differ = {name for name, old in zip(own, values) if own[name] is not old}
    if differ != {"training"}:
        return False
    values[:] = own.values()
    return True
