"""Builds models and optimizers from recipes."""

import dataclasses
import fractions
import numbers
from typing import Any

import keras

from kerassl import encoders, methods, registry
from kerassl.auto import SMALL_SIZE
from kerassl.choices import check_choice
from kerassl.environment import has_accelerator
from kerassl.methods.views import views_for
from kerassl.models import in_precision
from kerassl.names import FROM_WEIGHTS
from kerassl.recipe_fields import find_recipe
from kerassl.recipes import rates
from kerassl.recipes.going_on import going_on
from kerassl.recipes.length import of_length
from kerassl.recipes.recipe import METHODS, VIEWS, Recipe
from kerassl.training import precision


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
    recipe: Recipe,
    image_shape: tuple[int, ...],
    steps_per_epoch: int,
    encoder: keras.Model | None = None,
    teacher: keras.Model | None = None,
) -> methods.SelfSupervisedModel:
    """Builds a compiled model, with the same first weights at each call.

    Sets the random seed of the process to the recipe's.

    Args:
        recipe: `Recipe`.
        image_shape: `(height, width, channels)` of the images.
        steps_per_epoch: int > 0; the schedule needs it.
        encoder: `keras.Model` of such images to go on from, in any precision;
            by default a new one of the recipe's name.
        teacher: `keras.Model` instead of the teacher that the recipe names.

    Returns:
        A `SelfSupervisedModel`, compiled.

    Raises:
        ValueError: if the encoder or the views don't fit the images, the
            device can't compute in the recipe's precision, or the recipe goes
            on from weights and there is no encoder.
    """
    recipe = decided(recipe)
    keras.utils.set_random_seed(recipe.seed)
    with precision.of_new_layers(recipe.precision):
        if encoder is None:
            encoder = _new_encoder(recipe, image_shape)
        else:
            encoder = _in_precision(encoder, recipe)
        return _build(
            METHODS[recipe.method], recipe, encoder, steps_per_epoch, teacher
        )


def _new_encoder(recipe: Recipe, image_shape: tuple[int, ...]) -> keras.Model:
    if recipe.encoder == FROM_WEIGHTS:
        raise ValueError(
            f"The recipe {recipe.name} goes on from trained weights. Give them "
            "as `weights`, or an encoder's name as `encoder`."
        )
    options: dict[str, Any] = dict(recipe.normalization)
    if recipe.encoder.startswith(("vit_", "dinov2_")):
        options["pooling"] = METHODS[recipe.method].pooling
    return encoders.build(recipe.encoder, image_shape, **options)


def _in_precision(encoder: keras.Model, recipe: Recipe) -> keras.Model:
    policy = recipe.precision or keras.config.dtype_policy().name
    return encoders.accepted(in_precision(encoder, policy))


def build_from_recipe(
    cls: type,
    name: str,
    image_shape: tuple[int, ...] | None,
    steps: int,
    encoder: Any = None,
    weights: Any = None,
    **changes: Any,
) -> methods.SelfSupervisedModel:
    """Implements `SelfSupervisedModel.from_recipe`."""
    if not isinstance(steps, numbers.Integral) or steps < 1:
        raise ValueError(
            "`steps` must be the number of training steps of the whole run, a "
            f"positive integer. Received: {steps}"
        )
    recipe = get(*_find_method(cls, name))
    if weights is not None:
        if encoder is not None:
            raise ValueError(
                "`weights` are those of an encoder to go on from, so give "
                "either `weights` or `encoder`."
            )
        recipe = going_on(recipe)
    if isinstance(encoder, str):
        changes["encoder"] = encoder
    recipe = decided(recipe.change(**changes))
    keras.utils.set_random_seed(recipe.seed)
    with precision.of_new_layers(recipe.precision):
        if weights is not None:
            load_encoder = registry.linked("load_encoder")
            encoder = load_encoder(weights, image_shape=image_shape)
            encoder = _in_precision(encoder, recipe)
        encoder, recipe = _encoder_for(recipe, encoder, image_shape)
        size = changes.get("image_size")
        found = encoder.input_shape[1:3]
        if size is not None and not {size} >= {*found} - {None}:
            raise ValueError(
                f"`image_size` is {size}, and the encoder takes images of "
                f"{found} pixels. Leave out `image_size`; for smaller views "
                "change `views.size`."
            )
        steps_per_epoch: Any = fractions.Fraction(int(steps), recipe.epochs)
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
        encoder = _new_encoder(recipe, image_shape)
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
    shape = model.encoder.input_shape[1:3]
    views = getattr(model.augmenter, "sizes", {}).values()
    sizes = list(filter(None, shape)) or list(filter(None, views))
    size = min(sizes) if sizes else encoders.image_size(model.encoder)
    recipe = default(method, size, has_accelerator())
    return rates.build_optimizer(recipe, model, None)


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
    teacher: keras.Model | None = None,
) -> methods.SelfSupervisedModel:
    views = dict(recipe.views)
    make_views = VIEWS[views.pop("preset")]
    plan = recipe.resolve(steps_per_epoch)
    try:
        # Learning rate schedules count batches; methods count updates.
        batches = recipe.optimizer.get("gradient_accumulation_steps") or 1
        updates = plan["total_steps"] // batches
        arguments = {
            name: of_length(value, updates, updates / recipe.epochs)
            for name, value in recipe.method_args.items()
        }
        if teacher is not None:
            arguments["teacher"] = teacher
        model = cls(
            encoder,
            augmenter=views_for(encoder, make_views, **views),
            **arguments,
        )
        model.compile(rates.build_optimizer(recipe, model, plan))
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
