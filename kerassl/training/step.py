"""One training step for three backends: Keras's own, then `after_update`."""

import contextlib
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import ops

from kerassl.distributed import global_gradients, global_statistics
from kerassl.layers import MomentumNetwork
from kerassl.networks import all_layers

# The trainable variables that an optimizer was built for.
_BUILT_FOR: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def train_step(model: Any, keras_step: Callable, *args: Any) -> Any:
    """Runs Keras's own training step and then the model's `after_update`.

    The step comes from Keras, and with it loss scaling, gradient accumulation,
    compilation, metrics and distribution. `after_update` sees the weights and
    the `optimizer.iterations` that the optimizer left. What it assigns is kept
    only if the optimizer really stepped: neither on the micro-steps of gradient
    accumulation, nor when float16 gradients overflowed.

    Args:
        model: a compiled `SelfSupervisedModel`.
        keras_step: the bound `train_step` of `keras.Model`.
        *args: what Keras passes to it: `(state, data)` on JAX, `(data,)` on
            TensorFlow and PyTorch.

    Returns:
        What `keras_step` returns, with `after_update`'s changes in the state
        on JAX; TensorFlow's and PyTorch's are assigned in place.
    """
    if keras.backend.backend() == "jax":
        return _functional_step(model, keras_step, *args)
    return _stateful_step(model, keras_step, *args)


@contextlib.contextmanager
def weights_kept(model: Any) -> Iterator[None]:
    """Leaves a model its variables if `fit`, `evaluate` or `predict` fails.

    On JAX Keras takes the values out of them while it reads data and steps. If
    reading fails they are lost: before the first step of `fit`, and at any time
    in `evaluate` and `predict`.

    Args:
        model: a built `keras.Model`.
    """
    if keras.backend.backend() != "jax":
        yield
        return
    variables = [*model.variables, *model.metrics_variables]
    optimizer = getattr(model, "optimizer", None)
    if optimizer is not None:
        variables += optimizer.variables
    before = [(variable, variable.value) for variable in variables]
    try:
        yield
    except BaseException:
        lost = [pair for pair in before if _is_lost(pair[0])]
        if any(value.is_deleted() for _, value in lost):
            # A step took it over, and left another.
            model.jax_state_sync()
        else:
            for variable, value in lost:
                variable.assign(value)
        raise


def _is_lost(variable: Any) -> bool:
    try:
        variable.value
    except TypeError:
        return True
    return False


def build_optimizer(model: Any) -> None:
    """Makes the variables of a compiled model's optimizer, if it has none yet.

    On TensorFlow Keras leaves it to the first step, which is traced twice then.

    Args:
        model: a built `keras.Model`.

    Raises:
        ValueError: if it has them for other variables, since layers were frozen
            or thawed meanwhile. TensorFlow would train what was trainable then,
            PyTorch what is now.
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
    """Returns where variables of a model are made and assigned."""
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
    # A copy, since PyTorch moves the variable's own tensor.
    before = ops.copy(ops.convert_to_tensor(model.optimizer.iterations))
    with contextlib.ExitStack() as stack:
        if model.global_batch_norm:
            stack.enter_context(global_statistics(model))
        stack.enter_context(global_gradients(model))
        logs = keras_step(data)
    for variable, value in _changes(model, before, []):
        variable.assign(value)
    return logs


def _changes(model: Any, before: Any, scope: list) -> list[tuple[Any, Any]]:
    """Returns what `after_update` assigns, as (variable, value) pairs."""
    given = {id(variable): value for variable, value in scope}
    with keras.StatelessScope(scope) as after:
        if model.counts_steps:
            model.steps.assign(ops.cast(model.optimizer.iterations, "int32"))
        model.after_update()
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
    """Says whether some calls of the optimizer leave the weights alone."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return True
    return bool(optimizer.gradient_accumulation_steps)


def follow_frozen(model: keras.Model) -> None:
    """Lets a model's momentum networks follow what is frozen or thawed.

    Args:
        model: `keras.Model`.
    """
    with scope(model):
        for layer in all_layers(model):
            if isinstance(layer, MomentumNetwork):
                layer.follow()
