"""Builds models and optimizers from recipes."""

import dataclasses
import fractions
from typing import Any

import keras

from kerassl import encoders, layers, methods, optimizers, registry
from kerassl.choices import check_choice
from kerassl.environment import environment
from kerassl.recipe_fields import find_recipe
from kerassl.recipes.recipe import METHODS, OPTIMIZERS, VIEWS, Recipe
from kerassl.training import precision

# The `cpu` and `cifar` recipes are made for images of up to so many pixels.
SMALL_SIZE = 64


def get(method: str, name: str = "cpu") -> Recipe:
    """Returns a recipe by name.

    Args:
        method: str, one of `methods()`.
        name: str, one of `names(method)`; or the path of a TOML file of
            recipes, and after a colon the name of its table, which can be left
            out if there is only one: `"my.toml"`, `"my.toml:cpu"`.

    Returns:
        A `Recipe`.

    Raises:
        ValueError: if there is no such method or recipe, with the nearest
            ones, or the file holds something else.
        OSError: if the file can't be read.

    Example:
    ```python
    recipe = kerassl.recipes.get("simclr", "cpu")
    ```
    """
    return Recipe.from_dict(find_recipe(method, name))


def default(method: str, image_size: int, accelerator: bool) -> Recipe:
    """Returns the recipe that fits the images and the device.

    Without an accelerator it is `cpu`. Images of more than 64 pixels are then
    resized to 64, since training at their own size would take hours. With an
    accelerator it is `cifar` for images of up to 64 pixels, and `imagenet` for
    larger ones.

    Args:
        method: str, one of `methods()`.
        image_size: int > 0, the short side of the images, in pixels.
        accelerator: bool. Whether there is a GPU or a TPU.

    Returns:
        A `Recipe`.

    Raises:
        ValueError: if there is no such method, with the nearest ones.

    Example:
    ```python
    recipe = kerassl.recipes.default("simclr", 224, accelerator=False)
    recipe.name, recipe.image_size  # ("cpu", 64)
    ```
    """
    small = image_size <= SMALL_SIZE
    if accelerator:
        return get(method, "cifar" if small else "imagenet")
    return get(method, "cpu").replace(image_size=None if small else SMALL_SIZE)


def decided(recipe: Recipe) -> Recipe:
    """Returns a recipe whose precision is not left to the device.

    Args:
        recipe: `Recipe`. If its `precision` is `"auto"`, the device decides.
    """
    if recipe.precision == "auto":
        return recipe.replace(precision=precision.best())
    return recipe


def build_model(
    recipe: Recipe, image_shape: tuple[int, ...], steps_per_epoch: int
) -> methods.SelfSupervisedModel:
    """Builds a compiled model, with the same first weights at each call.

    Sets the random seed of the process to the recipe's.

    Args:
        recipe: `Recipe`.
        image_shape: `(height, width, channels)` of the images.
        steps_per_epoch: int > 0; the schedule needs it.

    Returns:
        A `SelfSupervisedModel`, compiled.

    Raises:
        ValueError: if the encoder or the views don't fit the images, or the
            device can't compute in the recipe's precision.
    """
    recipe = decided(recipe)
    keras.utils.set_random_seed(recipe.seed)
    with precision.of_new_layers(recipe.precision):
        encoder = encoders.build(recipe.encoder, image_shape)
        return _build(METHODS[recipe.method], recipe, encoder, steps_per_epoch)


def build_from_recipe(
    cls: type,
    name: str,
    image_shape: tuple[int, ...] | None,
    steps: int,
    encoder: Any = None,
    **changes: Any,
) -> methods.SelfSupervisedModel:
    """Implements `SelfSupervisedModel.from_recipe`."""
    if not isinstance(steps, int) or steps < 1:
        raise ValueError(
            "`steps` must be the number of training steps of the whole run, a "
            f"positive integer. Received: {steps}"
        )
    recipe = get(*_find_method(cls, name))
    if isinstance(encoder, str):
        changes["encoder"] = encoder
    recipe = decided(recipe.change(**changes))
    keras.utils.set_random_seed(recipe.seed)
    with precision.of_new_layers(recipe.precision):
        encoder, recipe = _encoder_for(recipe, encoder, image_shape)
        steps_per_epoch: Any = fractions.Fraction(steps, recipe.epochs)
        return _build(cls, recipe, encoder, steps_per_epoch)


def _encoder_for(
    recipe: Recipe, encoder: Any, image_shape: tuple[int, ...] | None
) -> tuple[keras.Model, Recipe]:
    """Builds or checks the encoder; the recipe then has its image size."""
    if encoder is None or isinstance(encoder, str):
        if image_shape is None:
            raise ValueError(
                "Give `image_shape`, (height, width, channels) of the images, "
                "or a model as `encoder`."
            )
        encoder = encoders.build(recipe.encoder, image_shape)
    else:
        encoder = encoders.as_encoder(encoder)
        found = tuple(encoder.input_shape[1:])
        if image_shape is not None and tuple(image_shape) != found:
            raise ValueError(
                f"`image_shape` is {tuple(image_shape)}, and the encoder takes "
                f"{found}. Leave out `image_shape`."
            )
        if recipe.precision is not None:
            precision.check_encoder(encoder, recipe.precision)
    height, width = encoder.input_shape[1:3]
    if recipe.image_size not in (None, height):
        # So that the recipe describes the run.
        size = height if height == width else None
        recipe = dataclasses.replace(recipe, image_size=size)
    return encoder, recipe


def build_optimizer(model: Any) -> keras.optimizers.Optimizer:
    """Implements `compile("auto")`: the default recipe's, without a schedule.

    Args:
        model: `SelfSupervisedModel`, of a registered method.

    Returns:
        An optimizer at the recipe's peak learning rate for its batch size.
    """
    method, _ = _find_method(type(model), "cpu")
    has_accelerator = "cpu" not in environment()["device"]
    recipe = default(
        method, encoders.image_size(model.encoder), has_accelerator
    )
    return _optimizer(recipe, None)


registry.link(build=build_from_recipe, optimizer=build_optimizer)


def _find_method(cls: type, name: str) -> tuple[str, str]:
    """Returns the method's name and the recipe's, of `"cpu"` or `"a/cpu"`."""
    known = [entry.name for entry in registry.entries_of(cls)]
    if not known:
        raise ValueError(
            f"{cls.__name__} has no recipes: it is neither a registered method "
            "nor a subclass of one."
        )
    method, is_given, rest = name.partition("/")
    if is_given and method in registry.entries():
        check_choice(f"recipe family of {cls.__name__}", method, known)
        return method, rest
    return known[0], name


def _build(
    cls: type,
    recipe: Recipe,
    encoder: keras.Model,
    steps_per_epoch: float,
) -> methods.SelfSupervisedModel:
    views = dict(recipe.views)
    make_views = VIEWS[views.pop("preset")]
    plan = recipe.resolve(steps_per_epoch)
    try:
        # Learning rate schedules count batches; methods count updates.
        batches = recipe.optimizer.get("gradient_accumulation_steps") or 1
        updates = plan["total_steps"] // batches
        arguments = {
            name: _of_length(value, updates, updates / recipe.epochs)
            for name, value in recipe.method_args.items()
        }
        model = cls(
            encoder,
            augmenter=make_views(encoders.image_size(encoder), **views),
            **arguments,
        )
        model.compile(_optimizer(recipe, plan))
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        # Raised by classes that don't check the types of their arguments.
        raise ValueError(
            f"The recipe {recipe.name} has arguments that {recipe.method}, its "
            f"views or its optimizer can't take: {type(error).__name__}: "
            f"{error}"
        ) from error
    precision.check_device(model)
    model.recipe = recipe
    return model


def _of_length(value: Any, total: int, steps_per_epoch: float) -> Any:
    """Replaces the values that depend on the length of the run."""
    if isinstance(value, dict) and set(value) == {"cosine_from"}:
        return layers.CosineMomentum(value["cosine_from"], total)
    if isinstance(value, dict) and set(value) == {"cosine"}:
        start, end = value["cosine"]
        return optimizers.Ramp(start, end, total)
    if isinstance(value, dict) and set(value) == {"linear", "epochs"}:
        steps = max(1, min(total, round(value["epochs"] * steps_per_epoch)))
        start, end = value["linear"]
        return optimizers.Ramp(start, end, steps, "linear")
    if isinstance(value, dict) and set(value) == {"epochs"}:
        return round(value["epochs"] * steps_per_epoch)
    return value


def _optimizer(
    recipe: Recipe, plan: dict[str, Any] | None
) -> keras.optimizers.Optimizer:
    """Builds a recipe's optimizer; without a plan at a constant rate."""
    schedule = recipe.schedule
    peak = (plan or recipe.resolve(1))["learning_rate"]
    arguments = dict(recipe.optimizer, learning_rate=_rate(recipe, plan, peak))
    # Without a plan the decay, too, is that of the start.
    total = plan["total_steps"] if plan else 10**12
    total //= recipe.optimizer.get("gradient_accumulation_steps") or 1
    arguments = {
        name: _of_length(value, total, total / recipe.epochs)
        for name, value in arguments.items()
    }
    optimizer = OPTIMIZERS[arguments.pop("name")](**arguments)
    rates = {name: peak for name in schedule.get("constant", ())}
    for name, share in schedule.get("shares", {}).items():
        rates[name] = _rate(recipe, plan, share * peak)
    if rates:
        return optimizers.with_learning_rates(optimizer, rates)
    return optimizer


def _rate(recipe: Recipe, plan: dict[str, Any] | None, peak: float) -> Any:
    if plan is None:
        return peak
    total = plan["total_steps"]
    milestones = recipe.schedule.get("milestones")
    if milestones:
        return keras.optimizers.schedules.PiecewiseConstantDecay(
            [round(share * total) for share in milestones],
            [peak * 0.1**i for i in range(len(milestones) + 1)],
        )
    return optimizers.warmup_cosine(
        peak,
        total,
        plan["warmup_steps"],
        final=peak * recipe.schedule.get("final_share", 0.0),
    )
