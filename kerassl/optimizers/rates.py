"""Separate learning rates for parts of a model."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import keras


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
            `"predictor"`.
        parts: dict of a name to variables, such as the result of
            `kerassl.encoders.parts`.

    Returns:
        A `keras.optimizers.MultiOptimizer`.

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
    copies = {
        _pattern(name, parts or {}): type(optimizer).from_config(
            {
                **config,
                "learning_rate": rate,
                "name": f"{config['name']}_{name}",
            }
        )
        for name, rate in rates.items()
    }
    return keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(optimizer, copies)
    )


def _pattern(name: str, parts: Mapping[str, Sequence[keras.Variable]]) -> str:
    """Returns the regular expression of the paths of a part's variables."""
    if name in parts:
        paths = (re.escape(variable.path) for variable in parts[name])
        return f"({'|'.join(paths)})"
    return f"(.*/)?{re.escape(name)}/.*"
