"""The state of a model's seed generators, which Keras doesn't save."""

from typing import Any

import keras
from keras import ops

# Keras's name for the variable of each `SeedGenerator`.
SEED_STATE = "seed_generator_state"


def seed_states(model: keras.Model) -> list[keras.Variable]:
    """Returns the variables of a model's seed generators, in a fixed order."""
    return [v for v in model.variables if v.name == SEED_STATE]


def save_seeds(model: keras.Model, store: Any) -> None:
    """Adds a model's seeds to what `save_own_variables` stored.

    A run that continues elsewhere then draws the views it would have drawn.

    Args:
        model: `keras.Model`.
        store: dict-like, from name to array.
    """
    for i, state in enumerate(seed_states(model)):
        store[f"seed_{i}"] = ops.convert_to_numpy(state)


def load_seeds(model: keras.Model, store: Any) -> dict[str, Any]:
    """Restores the seeds that `save_seeds` stored.

    Args:
        model: `keras.Model`.
        store: dict-like, from name to array.

    Returns:
        A dict of the other entries, for `load_own_variables`.

    Raises:
        ValueError: if a seed is missing.
    """
    seeds = {f"seed_{i}": state for i, state in enumerate(seed_states(model))}
    missing = sorted(set(seeds) - set(store.keys()))
    if missing:
        raise ValueError(
            f"The file lacks the random state {missing} of {model.name}. "
            f"Found: {sorted(store.keys())}"
        )
    for name, state in seeds.items():
        state.assign(store[name])
    return {name: store[name] for name in store.keys() if name not in seeds}
