"""Values in recipes that depend on the length of a run."""

from typing import Any

from kerassl import layers, optimizers

# A ramp without a number of epochs takes the whole run.
RAMP = {"linear", "epochs"}


def of_length(value: Any, total: int, steps_per_epoch: float) -> Any:
    """Replaces a value that depends on the length of the run.

    Args:
        value: an argument in a recipe.
        total: int, the number of updates of the run.
        steps_per_epoch: float, the number of updates of an epoch.

    Returns:
        What the argument stands for: a schedule, a number of steps or itself.
    """
    if isinstance(value, dict) and set(value) == {"cosine_from"}:
        return layers.CosineMomentum(value["cosine_from"], total)
    if isinstance(value, dict) and set(value) == {"cosine"}:
        start, end = value["cosine"]
        return optimizers.Ramp(start, end, total)
    if isinstance(value, dict) and {"linear"} <= set(value) <= RAMP:
        steps = total
        if "epochs" in value:
            steps = min(total, round(value["epochs"] * steps_per_epoch))
        start, end = value["linear"]
        return optimizers.Ramp(start, end, max(1, steps), "linear")
    if isinstance(value, dict) and set(value) == {"epochs"}:
        return round(value["epochs"] * steps_per_epoch)
    return value
