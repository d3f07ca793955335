"""Separate learning rates for parts of a model."""

import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="kerassl")
class PartsOptimizer(keras.optimizers.MultiOptimizer):
    """Keras's `MultiOptimizer`, for parts that differ only in the rate.

    `global_clipnorm` limits the gradients of all parts together, and a warning
    names parts that have no variables.
    """

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Builds the optimizer of each part that has variables."""
        super().build(variables)
        *parts, rest = self.optimizers
        for part in parts:
            if not part.built:
                name = part.name.removeprefix(f"{rest.name}_")
                warnings.warn(
                    f"The learning rate of {name!r} has no effect: it is in "
                    "the path of no trainable variable. Give the name of a "
                    f"layer, or the variables as `parts={{{name!r}: ...}}`."
                )

    def apply(
        self,
        grads: Sequence[Any],
        trainable_variables: Sequence[keras.Variable] | None = None,
    ) -> None:
        """Clips all gradients by their common norm, and deals them out."""
        limit = self.optimizers[-1].global_clipnorm
        if limit:
            limit *= self.loss_scale_factor or 1
            # In float32: squares of gradients exceed float16.
            squares = [
                ops.sum(ops.square(ops.cast(g, "float32")))
                for g in grads
                if g is not None
            ]
            share = limit / ops.maximum(ops.sqrt(sum(squares)), limit)
            # The parts clip again, which changes nothing: none is longer now.
            grads = [
                None if g is None else ops.multiply(g, ops.cast(share, g.dtype))
                for g in grads
            ]
        super().apply(grads, trainable_variables)


def with_learning_rates(
    optimizer: keras.optimizers.Optimizer,
    rates: Mapping[str, Any],
    parts: Mapping[str, Sequence[keras.Variable]] | None = None,
) -> keras.optimizers.MultiOptimizer:
    """Returns an optimizer with separate learning rates for parts of a model.

    A part with a rate of 0 is frozen, but for the statistics of batch
    normalization.

    Args:
        optimizer: the optimizer for all other variables. Each part gets a copy
            made from its config, with its own learning rate. The config of
            Keras's optimizers doesn't include `exclude_from_weight_decay`; that
            of `kerassl.optimizers` does.
        rates: dict of a part's name to its learning rate, a float or a
            schedule. A part is one of `parts`, or a layer, such as
            `"predictor"`, whose name is in the paths of its variables.
        parts: dict of a name to variables, such as the result of
            `kerassl.encoders.parts`. An encoder's own name is usually not in
            their paths: give `{"encoder": encoder.trainable_variables}`.

    Returns:
        A `keras.optimizers.MultiOptimizer`. It warns of a layer's name that is
        in no path.

    Raises:
        ValueError: if the optimizer accumulates gradients, which Keras's
            `MultiOptimizer` can't.

    Example:
    ```python
    rate = kerassl.optimizers.warmup_cosine(0.03, total_steps=10_000)
    optimizer = kerassl.optimizers.with_learning_rates(
        keras.optimizers.SGD(rate, momentum=0.9), {"predictor": 0.03}
    )
    ```
    """
    if optimizer.gradient_accumulation_steps:
        raise ValueError(
            "An optimizer with `gradient_accumulation_steps` can't have "
            "separate learning rates for some layers. Leave out one of them."
        )
    config = optimizer.get_config()
    parts = parts or {}
    copies = {
        _pattern(name, parts): type(optimizer).from_config(
            {
                **config,
                "learning_rate": rate,
                "name": f"{config['name']}_{name}",
            }
        )
        for name, rate in rates.items()
        # A stage may have no variables, or frozen ones only.
        if name not in parts or parts[name]
    }
    return PartsOptimizer(
        keras.optimizers.OptimizerMap(optimizer, copies),
        # Keras sets it in all parts.
        loss_scale_factor=optimizer.loss_scale_factor,
    )


def _pattern(name: str, parts: Mapping[str, Sequence[keras.Variable]]) -> str:
    """Returns the regular expression of the paths of a part's variables."""
    if name in parts:
        paths = (re.escape(variable.path) for variable in parts[name])
        return f"({'|'.join(paths)})"
    return f"(.*/)?{re.escape(name)}/.*"
