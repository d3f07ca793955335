"""The training step on three backends: Keras's own, then `after_update`."""

import contextlib
import functools
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
from keras import ops

from kerassl.distributed import global_gradients
from kerassl.layers import MomentumNetwork
from kerassl.networks import all_layers

# For each optimizer, the ids of the variables that it was built for.
_BUILT_FOR: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def train_step(model: Any, keras_step: Callable, *args: Any) -> Any:
    """Runs Keras's own training step and then the model's `after_update`.

    Loss scaling, gradient accumulation, compilation, metrics and distribution
    come from Keras's step. `after_update` sees the weights and the
    `optimizer.iterations` after the optimizer step. Its assignments are kept
    only if the optimizer changed the weights: not on the micro-steps of
    gradient accumulation, and not when float16 gradients overflowed.

    Args:
        model: a compiled `SelfSupervisedModel`.
        keras_step: the bound `train_step` of `keras.Model`.
        *args: Keras's arguments: `(state, data)` on JAX, `(data,)` on
            TensorFlow and PyTorch.

    Returns:
        The result of `keras_step`. On JAX its state includes the changes of
        `after_update`; TensorFlow and PyTorch assign them in place.
    """
    if keras.backend.backend() == "jax":
        return _functional_step(model, keras_step, *args)
    return _stateful_step(model, keras_step, *args)


@contextlib.contextmanager
def weights_kept(model: Any) -> Iterator[Callable[[], None]]:
    """Keeps a model's variables intact if `fit`, `evaluate` or `predict` fails.

    On JAX Keras takes the values out of the variables while it reads data and
    runs steps. If reading fails they are lost: before the first step of an
    epoch of `fit`, and at any time in `evaluate` and `predict`.

    Args:
        model: a built `keras.Model`.

    Yields:
        A function that notes the values again. `fit` calls it as each epoch
        begins: the first step of the last one has used up what was noted.
    """
    if keras.backend.backend() != "jax":
        yield lambda: None
        return
    variables = _state(model)
    before: list[tuple[Any, Any]] = []

    def note() -> None:
        before[:] = [(variable, variable.value) for variable in variables]

    note()
    try:
        yield note
    except BaseException:
        lost = [pair for pair in before if _is_lost(pair[0])]
        if any(value.is_deleted() for _, value in lost):
            # A step has donated the buffers; Keras holds newer values.
            model.jax_state_sync()
        else:
            for variable, value in lost:
                variable.assign(value)
        raise


def _state(model: Any) -> list[Any]:
    variables = [*model.variables, *model.metrics_variables]
    optimizer = getattr(model, "optimizer", None)
    return variables if optimizer is None else variables + optimizer.variables


def _is_lost(variable: Any) -> bool:
    try:
        return variable.value.is_deleted()
    except TypeError:
        return True


def unshared(model: Any) -> None:
    """Parts variables that share a JAX array, which a step would donate twice.

    Keras's `use_ema` assigns averages to the weights when `fit` ends.

    Args:
        model: a built `keras.Model`.
    """
    if keras.backend.backend() != "jax":
        return
    found = set()
    for variable in _state(model):
        if _is_lost(variable):
            continue
        value = variable.value
        if id(value) in found:
            variable.assign(ops.copy(value))
        found.add(id(value))


@contextlib.contextmanager
def averages_apart(optimizer: Any) -> Iterator[None]:
    """Keeps `fit` from replacing the weights by their averages (`use_ema`).

    Args:
        optimizer: that of the model.
    """
    optimizer.finalize_variable_values = lambda variables: None
    try:
        yield
    finally:
        del optimizer.finalize_variable_values


def take_averages(model: Any) -> None:
    """Replaces the weights by their averages, if the optimizer has any.

    Args:
        model: a compiled `keras.Model`.
    """
    with scope(model):
        model.optimizer.finalize_variable_values(model.trainable_weights)
    unshared(model)


def build_optimizer(model: Any) -> None:
    """Builds the optimizer of a compiled model, unless it is built.

    On TensorFlow Keras would do so in the first step, which is then traced
    twice.

    Args:
        model: a built `keras.Model`.

    Raises:
        ValueError: if it was built for other variables, because layers have
            been frozen or thawed since. TensorFlow would train the variables of
            then, PyTorch those of now.
    """
    if not model.compiled:
        return
    if not model.optimizer.built:
        with scope(model):
            model.optimizer.build(model.trainable_variables)
    now = [id(variable) for variable in model.trainable_variables]
    known = _BUILT_FOR.setdefault(model.optimizer, now)
    if known != now:
        raise ValueError(
            f"The optimizer was made for {len(known)} trainable variables, "
            f"and {len(now)} are trainable now: layers were frozen or "
            "thawed. Call `compile` again, with a new optimizer."
        )


def scope(model: Any) -> Any:
    """Returns the scope in which a model's variables are made and assigned."""
    if keras.backend.backend() == "tensorflow":
        return model.distribute_strategy.scope()
    return contextlib.nullcontext()


def _functional_step(
    model: Any, keras_step: Callable, state: tuple, data: Any
) -> tuple:
    optimizer_variables = model.optimizer.variables
    with keras.StatelessScope(list(zip(optimizer_variables, state[2]))):
        before = ops.convert_to_tensor(model.optimizer.iterations)
    logs, (trainable, non_trainable, optimizer, metrics) = keras_step(
        state, data
    )
    variables = model.trainable_variables + model.non_trainable_variables
    scope = list(zip(variables, [*trainable, *non_trainable]))
    values = {id(variable): value for variable, value in scope}
    scope += zip(optimizer_variables, optimizer)
    for variable, value in _changes(model, before, scope):
        values[id(variable)] = value
    return logs, (
        [values[id(variable)] for variable in model.trainable_variables],
        [values[id(variable)] for variable in model.non_trainable_variables],
        optimizer,
        metrics,
    )


def _stateful_step(model: Any, keras_step: Callable, data: Any) -> Any:
    # A copy, since PyTorch updates the variable's tensor in place.
    before = ops.copy(ops.convert_to_tensor(model.optimizer.iterations))
    with global_gradients(model):
        logs = keras_step(data)
    if keras.backend.backend() == "torch":
        _follow_in_place(model, before)
    else:
        for variable, value in _changes(model, before, []):
            variable.assign(value)
    return logs


def _follow_in_place(model: Any, before: Any) -> None:
    """Runs `after_update` where the host can know whether to: on PyTorch.

    An optimizer that may skip a step has waited for the device to decide that.
    """
    import torch

    if _may_skip(model.optimizer) and not bool(
        ops.greater(model.optimizer.iterations, before)
    ):
        return
    with torch.no_grad():
        _follow(model)


def _follow(model: Any) -> None:
    if model.counts_steps:
        # Not the optimizer's count, which a new optimizer begins anew.
        model.steps.assign(ops.convert_to_tensor(model.steps) + 1)
    model.after_update()


def _changes(model: Any, before: Any, scope: list) -> list[tuple[Any, Any]]:
    """Returns the assignments of `after_update` as (variable, value) pairs."""
    given = {id(variable): value for variable, value in scope}
    with keras.StatelessScope(scope) as after:
        _follow(model)
        stepped = ops.greater(model.optimizer.iterations, before)
    changes = []
    for variable in model.trainable_variables + model.non_trainable_variables:
        new = after.get_current_value(variable)
        old = given.get(id(variable))
        if new is None or new is old:
            continue
        if _may_skip(model.optimizer):
            if old is None:
                old = ops.convert_to_tensor(variable)
            new = ops.where(stepped, new, old)
        changes.append((variable, new))
    return changes


def _may_skip(optimizer: Any) -> bool:
    """Returns whether some optimizer calls leave the weights unchanged."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return True
    return bool(optimizer.gradient_accumulation_steps)


def not_finite(variables: Sequence[Any]) -> list[Any]:
    """Returns the variables that hold NaN or infinite values.

    The values stay on the device.

    Args:
        variables: sequence of `keras.Variable`.
    """
    floats = [v for v in variables if keras.backend.is_float_dtype(v.dtype)]
    values = [ops.convert_to_tensor(variable) for variable in floats]
    finite = ops.convert_to_numpy(_are_finite()(values))
    return [
        variable for variable, is_finite in zip(floats, finite) if not is_finite
    ]


@functools.cache
def _are_finite() -> Callable[[list], Any]:
    def are_finite(values: list) -> Any:
        return ops.stack([ops.all(ops.isfinite(value)) for value in values])

    if keras.backend.backend() != "jax":
        return are_finite
    import jax

    # Otherwise JAX compiles each operation for each shape.
    return jax.jit(are_finite)


def follow_frozen(model: Any) -> None:
    """Updates what follows layers that have been frozen or thawed.

    Args:
        model: `SelfSupervisedModel`.
    """
    model.keep_frozen()
    with scope(model):
        for layer in all_layers(model):
            if isinstance(layer, MomentumNetwork):
                layer.follow()
