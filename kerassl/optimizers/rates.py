"""Separate learning rates for parts of a model."""

import re
from collections.abc import Mapping
from typing import Any

import keras


def with_learning_rates(
    optimizer: keras.optimizers.Optimizer, rates: Mapping[str, Any]
) -> keras.optimizers.MultiOptimizer:
    """Returns an optimizer with separate learning rates for some layers.

    Args:
        optimizer: the optimizer for all other variables. Each part gets a copy
            made from its config, with its own learning rate. The config of
            Keras's optimizers doesn't include `exclude_from_weight_decay`; that
            of `kerassl.optimizers` does.
        rates: dict of a layer's name, such as `"predictor"`, to its learning
            rate, a float or a schedule.

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
    parts = {
        f"(.*/)?{re.escape(name)}/.*": type(optimizer).from_config(
            {
                **config,
                "learning_rate": rate,
                "name": f"{config['name']}_{name}",
            }
        )
        for name, rate in rates.items()
    }
    return keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(optimizer, parts)
    )
