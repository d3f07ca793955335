"""Learning rates of their own for parts of a model."""

import re
from collections.abc import Mapping
from typing import Any

import keras


def with_learning_rates(
    optimizer: keras.optimizers.Optimizer, rates: Mapping[str, Any]
) -> keras.optimizers.MultiOptimizer:
    """Returns an optimizer that moves some layers at rates of their own.

    Args:
        optimizer: the optimizer for all other variables. The parts get others
            of its configuration with their learning rate. What Keras's
            `exclude_from_weight_decay` was told is not in it; the optimizers of
            `kerassl.optimizers` have it there.
        rates: dict of a layer's name, such as `"predictor"`, to its learning
            rate: a float or a schedule.

    Returns:
        A `keras.optimizers.MultiOptimizer`.

    Raises:
        ValueError: if the optimizer accumulates gradients: Keras's
            `MultiOptimizer` doesn't.

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
            "An optimizer with `gradient_accumulation_steps` can't have parts "
            "with rates of their own. Leave out one of them."
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
