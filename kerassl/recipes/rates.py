"""The optimizer of a recipe, with the learning rates of a model's parts."""

from typing import Any

import keras

from kerassl import encoders, optimizers
from kerassl.choices import check_choice
from kerassl.recipes.length import of_length
from kerassl.recipes.recipe import OPTIMIZERS, Recipe

ENCODER = "encoder"


def build_optimizer(
    recipe: Recipe, model: Any, plan: dict[str, Any] | None
) -> keras.optimizers.Optimizer:
    """Builds a recipe's optimizer.

    Args:
        recipe: `Recipe`.
        model: `SelfSupervisedModel`, which it will train.
        plan: the result of `recipe.resolve`; or `None` for constant rates.

    Returns:
        A Keras optimizer, with a schedule for each part that has its own.

    Raises:
        ValueError: if the recipe names a part that the model doesn't have,
            with the nearest ones.
    """
    peak = (plan or recipe.resolve(1))["learning_rate"]
    arguments = dict(recipe.optimizer, learning_rate=_rate(recipe, plan, peak))
    # Without a plan the decay, too, is that of the start.
    total = plan["total_steps"] if plan else 10**12
    total //= recipe.optimizer.get("gradient_accumulation_steps") or 1
    arguments = {
        name: of_length(value, total, total / recipe.epochs)
        for name, value in arguments.items()
    }
    optimizer = OPTIMIZERS[arguments.pop("name")](**arguments)
    schedule = recipe.schedule
    constant = schedule.get("constant", ())
    shares = schedule.get("shares", {})
    frozen = (plan or {}).get("frozen_steps", {})
    decay = schedule.get("layer_decay", 1.0)
    named = dict.fromkeys((*constant, *shares, *frozen))
    if not named and decay == 1:
        return optimizer
    parts = encoders.parts(model.encoder)
    for name in named:
        known = [ENCODER, *parts, *_layers(model)]
        check_choice(f"part of {recipe.method}", name, known)

    def rate_of(name: str, of_all: str, depth: int = 0) -> Any:
        share = shares.get(name, shares.get(of_all, 1.0) * decay**depth)
        if {name, of_all} & set(constant):
            return peak * share
        steps = frozen.get(name, frozen.get(of_all, 0))
        return _rate(recipe, plan, peak * share, steps)

    rates = {name: rate_of(name, name) for name in named if name != ENCODER}
    if ENCODER in named or decay != 1:
        for depth, name in enumerate(reversed(parts)):
            rates[name] = rate_of(name, ENCODER, depth)
    return optimizers.with_learning_rates(optimizer, rates, parts)


def _layers(model: Any) -> set[str]:
    """Returns the names in the paths of trainable variables."""
    paths = (variable.path.split("/") for variable in model.trainable_variables)
    return {name for path in paths for name in path[:-1]}


def _rate(
    recipe: Recipe, plan: dict[str, Any] | None, peak: float, frozen: int = 0
) -> Any:
    """Returns a learning rate: constant without a plan, else a schedule."""
    if plan is None or peak == 0:
        return peak
    total = plan["total_steps"] - frozen
    milestones = recipe.schedule.get("milestones")
    rate: Any
    if milestones:
        rate = keras.optimizers.schedules.PiecewiseConstantDecay(
            [round(share * total) for share in milestones],
            [peak * 0.1**i for i in range(len(milestones) + 1)],
        )
    else:
        rate = optimizers.warmup_cosine(
            peak,
            total,
            min(plan["warmup_steps"], total - 1),
            final=peak * recipe.schedule.get("final_share", 0.0),
        )
    return optimizers.Delayed(rate, frozen) if frozen else rate
