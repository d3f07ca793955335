"""The hyperparameters of a run, as plain data."""

import dataclasses
import numbers
from collections.abc import Callable
from typing import Any

import keras

from kerassl import (
    augmentation,
    encoders,
    layers,
    methods,
    optimizers,
)
from kerassl.choices import check_choice
from kerassl.reading import Form, check_fields, items, mapping, shown, text
from kerassl.renamed import current_recipe, recipe_hash

# What the names in recipes stand for. A new method adds its class here and a
# TOML file with its recipes beside this one.
METHODS: dict[str, Callable] = {
    "moco_v1": methods.MoCo,
    "moco_v2": methods.MoCo,
    "moco_v3": methods.MoCoV3,
    "simclr": methods.SimCLR,
    "simclr_v2": methods.SimCLR,
    "byol": methods.BYOL,
    "simsiam": methods.SimSiam,
    "swav": methods.SwAV,
    "barlow_twins": methods.BarlowTwins,
    "vicreg": methods.VICReg,
    "context_encoder": methods.ContextEncoder,
    "context_prediction": methods.ContextPrediction,
    "jigsaw": methods.Jigsaw,
    "rotation": methods.Rotation,
    "mae": methods.MAE,
}
VIEWS: dict[str, Callable] = {
    "simclr": augmentation.simclr,
    "moco_v1": augmentation.moco_v1,
    "moco_v2": augmentation.moco_v2,
    "byol": augmentation.byol,
    "swav": augmentation.swav,
    "context_prediction": augmentation.context_prediction,
    "jigsaw": augmentation.jigsaw,
    "crop_flip": augmentation.crop_flip,
}
# Keras's own optimizers decay weights apart from the gradient, by
# learning_rate * weight_decay * weight, which momentum doesn't see. Papers with
# SGD mean L2, which it does, and which momentum 0.9 makes ten times as strong:
# recipes have ten times the papers' number.
OPTIMIZERS: dict[str, Callable] = {
    "sgd": keras.optimizers.SGD,
    "adam": keras.optimizers.Adam,
    "adamw": optimizers.AdamW,
    "lars": optimizers.LARS,
}
_REAL = Form(lambda value: isinstance(value, numbers.Real), "a number")
# Of the fields that are dicts.
FORMS: dict[str, dict[str, Form]] = {
    "method_args": {},
    "views": {},
    "optimizer": {"learning_rate": _REAL},
    "schedule": {
        "warmup_epochs": _REAL,
        "warmup_share": _REAL,
        "final_share": _REAL,
        "milestones": items(_REAL),
        "constant": items(text()),
        "shares": mapping(_REAL),
    },
}
# How the learning rate grows with the batch, from that of 256 images.
SCALINGS: dict[str, Callable[[float], float]] = {
    "linear": lambda batch_size: batch_size / 256,
    "sqrt": lambda batch_size: (batch_size / 256) ** 0.5,
    "none": lambda batch_size: 1.0,
}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """All hyperparameters of a pretraining run, as plain data.

    Args:
        method: str, as in `kerassl.recipes.methods()`.
        name: str, the recipe's name among those of its method.
        encoder: str, as in `kerassl.encoders.names()`.
        epochs: int > 0.
        batch_size: int > 0.
        method_args: the arguments of the method's class. Two kinds of values
            follow the length of the run: `{"cosine_from": 0.99}`, a momentum
            that rises to 1 (`kerassl.layers.CosineMomentum`), and
            `{"epochs": 1}`, a number of steps.
        views: `"preset"`, the name of a function in `kerassl.augmentation`,
            and its arguments.
        optimizer: `"name"`, `"learning_rate"` at a batch of 256 images, and
            the optimizer's other arguments.
        schedule: `"scaling"` of the learning rate with the batch (`"linear"`,
            `"sqrt"` or `"none"`), `"warmup_epochs"`, and `"warmup_share"`, the
            largest share of the run that the warmup takes when a run is
            shortened. After the warmup comes a cosine to `"final_share"` of
            the learning rate (0 if left out); with `"milestones"`, shares of
            the run, it falls to a tenth at each instead, without a warmup.
            `"constant"` lists layers, such as `"predictor"`, whose rate stays
            at the peak, and `"shares"` gives layers a share of the rate, as in
            `{"discriminator": 0.1}`.
        image_size: int, or `None` for that of the data.
        seed: int, of the first weights, the order of the images and the views.
            Masks, jigsaw's permutations and MAE's noise have one of their own,
            an argument of the method.

    Raises:
        ValueError: if a name is unknown, with the nearest ones, or a number is
            out of its range.

    Example:
    ```python
    recipe = kerassl.recipes.get("simclr", "cpu").replace(epochs=20)
    model = kerassl.recipes.build_model(recipe, (32, 32, 3), steps_per_epoch=39)
    ```
    """

    method: str
    name: str
    encoder: str
    epochs: int
    batch_size: int
    method_args: dict[str, Any]
    views: dict[str, Any]
    optimizer: dict[str, Any]
    schedule: dict[str, Any]
    image_size: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the names and the numbers."""
        for name, forms in FORMS.items():
            check_fields(getattr(self, name), forms, f"`{name}`")
        if "learning_rate" not in self.optimizer:
            raise ValueError("`optimizer` lacks learning_rate.")
        check_choice("method", self.method, METHODS)
        check_choice("encoder", self.encoder, encoders.names())
        check_choice("preset of views", self.views.get("preset", ""), VIEWS)
        check_choice("optimizer", self.optimizer.get("name", ""), OPTIMIZERS)
        check_choice("scaling", self.schedule.get("scaling", ""), SCALINGS)
        if self.schedule.get("milestones") and self.schedule.get(
            "warmup_epochs"
        ):
            raise ValueError(
                "A schedule with `milestones` has no warmup. Received: "
                f"warmup_epochs={self.schedule['warmup_epochs']}"
            )
        for name in ("epochs", "batch_size", "image_size"):
            value = getattr(self, name)
            if value is None and name == "image_size":
                continue
            if not isinstance(value, int) or value < 1:
                raise ValueError(
                    f"`{name}` must be a positive integer. Received: "
                    f"{shown(value)}"
                )
        if not isinstance(self.seed, int) or not 0 <= self.seed < 2**32:
            raise ValueError(
                "`seed` must be an integer in [0, 2**32). Received: "
                f"{shown(self.seed)}"
            )

    def replace(self, **changes: Any) -> "Recipe":
        """Returns a copy with other values for some fields.

        Args:
            **changes: field to value. `None` leaves a field as it is.

        Returns:
            A `Recipe`.
        """
        given = {k: v for k, v in changes.items() if v is not None}
        return dataclasses.replace(self, **given)

    def resolve(self, steps_per_epoch: int) -> dict[str, Any]:
        """Returns what follows from the recipe for a number of images.

        Args:
            steps_per_epoch: int > 0.

        Returns:
            A dict: `learning_rate`, its peak after scaling; `total_steps`;
            `warmup_steps`.
        """
        total = self.epochs * steps_per_epoch
        warmup = self.schedule.get("warmup_epochs", 0) * steps_per_epoch
        longest = self.schedule.get("warmup_share", 1.0) * total
        scale = SCALINGS[self.schedule["scaling"]](self.batch_size)
        return {
            "learning_rate": self.optimizer["learning_rate"] * scale,
            "total_steps": total,
            "warmup_steps": int(min(warmup, longest, total - 1)),
        }

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "Recipe":
        """Makes a recipe of `to_dict`'s fields, also of older versions.

        Raises:
            ValueError: if a field is missing or unknown.
        """
        try:
            return cls(**current_recipe(fields))
        except TypeError as error:
            raise ValueError(f"This is not a recipe: {error}") from error

    @property
    def hash(self) -> str:
        """The SHA-256 of the fields, as 64 hexadecimal digits."""
        return recipe_hash(self.to_dict())


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
        ValueError: if the encoder or the views don't fit the images.
    """
    keras.utils.set_random_seed(recipe.seed)
    encoder = encoders.build(recipe.encoder, image_shape)
    try:
        return _compiled(recipe, encoder, steps_per_epoch)
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        # Of arguments that other classes check, or don't.
        raise ValueError(
            f"The recipe {recipe.name} has arguments that {recipe.method}, its "
            f"views or its optimizer can't take: {type(error).__name__}: "
            f"{error}"
        ) from error


def _compiled(
    recipe: Recipe, encoder: keras.Model, steps_per_epoch: int
) -> methods.SelfSupervisedModel:
    views = dict(recipe.views)
    make_views = VIEWS[views.pop("preset")]
    plan = recipe.resolve(steps_per_epoch)
    # A schedule of the rate counts batches, and a method the updates.
    batches = recipe.optimizer.get("gradient_accumulation_steps") or 1
    updates = plan["total_steps"] // batches
    arguments = {
        name: _method_argument(value, updates, updates / recipe.epochs)
        for name, value in recipe.method_args.items()
    }
    model = METHODS[recipe.method](
        encoder,
        augmenter=make_views(encoders.image_size(encoder), **views),
        **arguments,
    )
    model.compile(_build_optimizer(recipe, plan))
    return model


def _method_argument(value: Any, total: int, steps_per_epoch: float) -> Any:
    """Makes of a recipe's value what follows the length of the run."""
    if isinstance(value, dict) and set(value) == {"cosine_from"}:
        return layers.CosineMomentum(value["cosine_from"], total)
    if isinstance(value, dict) and set(value) == {"epochs"}:
        return round(value["epochs"] * steps_per_epoch)
    return value


def _build_optimizer(
    recipe: Recipe, plan: dict[str, Any]
) -> keras.optimizers.Optimizer:
    peak, schedule = plan["learning_rate"], recipe.schedule
    arguments = dict(recipe.optimizer, learning_rate=_rate(recipe, plan, peak))
    optimizer = OPTIMIZERS[arguments.pop("name")](**arguments)
    rates = {name: peak for name in schedule.get("constant", ())}
    for name, share in schedule.get("shares", {}).items():
        rates[name] = _rate(recipe, plan, share * peak)
    if rates:
        return optimizers.with_learning_rates(optimizer, rates)
    return optimizer


def _rate(
    recipe: Recipe, plan: dict[str, Any], peak: float
) -> keras.optimizers.schedules.LearningRateSchedule:
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
