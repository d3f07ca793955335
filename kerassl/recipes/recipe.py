"""The hyperparameters of a run, as plain data."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import keras

from kerassl import augmentation, methods, names, optimizers
from kerassl.choices import check_choice
from kerassl.recipe_fields import changed, check_recipe
from kerassl.registry import MethodEntry, entries
from kerassl.renamed import current_recipe, recipe_hash


def method_class(entry: MethodEntry) -> type[methods.SelfSupervisedModel]:
    """Returns the class of a registered method.

    Raises:
        ValueError: if `kerassl.methods` has no such class.
    """
    found = getattr(methods, entry.class_name, None)
    if found is None:
        raise ValueError(
            f"recipes/{entry.name}.toml names the class {entry.class_name}, "
            "which kerassl/methods/__init__.py doesn't import."
        )
    return found


METHODS = {name: method_class(entry) for name, entry in entries().items()}
VIEWS: dict[str, Callable] = {
    name: getattr(augmentation, name) for name in names.VIEWS
}
# Keras's optimizers apply weight decay outside the gradient, as
# learning_rate * weight_decay * weight, so momentum doesn't accumulate it.
# Papers with SGD mean L2 regularization, which momentum 0.9 amplifies ten
# times: recipes have ten times the papers' number.
OPTIMIZERS: dict[str, Callable] = {
    "sgd": keras.optimizers.SGD,
    "adam": keras.optimizers.Adam,
    "adamw": optimizers.AdamW,
    "lars": optimizers.LARS,
}
# The factor of the learning rate, relative to a batch of 256 images.
SCALINGS: dict[str, Callable[[float], float]] = {
    "linear": lambda batch_size: batch_size / 256,
    "sqrt": lambda batch_size: (batch_size / 256) ** 0.5,
    "none": lambda batch_size: 1.0,
}
# Arguments that aren't hyperparameters.
_NO_FIELDS = {"self", "encoder", "augmenter", "name"}


def arguments_of(function: Callable) -> list[str]:
    """Returns the names of the arguments that a recipe may give.

    Args:
        function: a function; or a class, whose `**kwargs` are those of its
            base class, up to Keras's own models.
    """
    found: dict[str, None] = {}
    classes = inspect.getmro(function) if inspect.isclass(function) else ()
    for callee in classes or (function,):
        if callee is keras.Model:
            break
        if classes and "__init__" not in vars(callee):
            continue
        parameters = inspect.signature(callee).parameters.values()
        found |= dict.fromkeys(
            p.name for p in parameters if p.kind is not p.VAR_KEYWORD
        )
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return [name for name in found if name not in _NO_FIELDS]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """All hyperparameters of a pretraining run, as plain data.

    Args:
        method: str, as in `kerassl.recipes.methods()`.
        name: str, the recipe's name among those of its method.
        encoder: str, as in `kerassl.encoders.names()`; or `"weights"`, that of
            weights to go on from (`kerassl.recipes.going_on`).
        epochs: int > 0.
        batch_size: int > 0.
        method_args: the arguments of the method's class. Some values follow
            the length of the run, here and in `optimizer`:
            `{"cosine_from": 0.99}`, a momentum that rises to 1
            (`kerassl.layers.CosineMomentum`); `{"cosine": [0.04, 0.4]}`, a
            number that moves from one value to another until the end, and
            `{"linear": [0.04, 0.07], "epochs": 30}` in the first epochs, but
            no longer than the run (both `kerassl.optimizers.Ramp`); and
            `{"epochs": 1}`, a number of steps.
        views: `"preset"`, the name of a function in `kerassl.augmentation`,
            and its arguments. `"size"` is the encoder's image size unless it
            is given, in pixels or as a share of the encoder's,
            `{"share": 0.5}`, rounded to whole patches of a ViT.
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
            `{"discriminator": 0.1}`. `"frozen_epochs"` gives layers a number of
            epochs with a rate of 0, before their own warmup and cosine, but at
            most `"frozen_share"` of the run. In all three, `"encoder"` is the
            encoder and the names of `kerassl.encoders.parts` are its parts; a
            share of 0 freezes a part for good. `"layer_decay"` is the factor on
            the rate from a part of the encoder to the one before it.
        image_size: int, or `None` for that of the data.
        seed: int, of the first weights, the order of the images and the views.
            Masks, jigsaw's permutations and MAE's noise have one of their own,
            an argument of the method.
        precision: `"float32"`, `"mixed_bfloat16"` or `"mixed_float16"`, the
            dtype policy of all layers; `"auto"`, `"mixed_bfloat16"` on GPUs
            and TPUs that have it and `"float32"` elsewhere; or `None` for
            Keras's global policy, float32 unless it was changed.
        normalization: `"mean"` and `"std"`, a number for each channel, of
            pixels in [0, 1]; or none, for those of
            `kerassl.encoders.build`. Runs measure them on images that aren't
            gray or RGB of 8 bits.

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
    precision: str | None = None
    normalization: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Checks the names, the numbers and the names of arguments."""
        check_recipe(vars(self))
        views, optimizer = dict(self.views), dict(self.optimizer)
        preset, name = views.pop("preset"), optimizer.pop("name")
        for function, kind, given in (
            (
                METHODS[self.method],
                f"argument of {self.method}'s method_args",
                self.method_args,
            ),
            (VIEWS[preset], f"argument of the views {preset}", views),
            (OPTIMIZERS[name], f"argument of the optimizer {name}", optimizer),
        ):
            known = arguments_of(function)
            for argument in given:
                check_choice(kind, argument, known)

    def replace(self, **changes: Any) -> "Recipe":
        """Returns a copy with other values for some fields.

        Args:
            **changes: field to value. `None` leaves a field as it is.

        Returns:
            A `Recipe`.
        """
        given = {k: v for k, v in changes.items() if v is not None}
        return dataclasses.replace(self, **given)

    def change(self, **changes: Any) -> "Recipe":
        """Returns a copy with dicts merged into the recipe's.

        Args:
            **changes: field to value. A dict is merged into the recipe's, and
                a name with dots goes into it:
                `optimizer={"learning_rate": 0.8}` and
                `**{"optimizer.learning_rate": 0.8}` are the same. A dict that
                names another optimizer or another preset of views replaces
                the recipe's, since its arguments differ.

        Returns:
            A `Recipe`.

        Raises:
            ValueError: if there is no such field, with the nearest ones.
        """
        return type(self)(**changed(vars(self), changes))

    def resolve(self, steps_per_epoch: float) -> dict[str, Any]:
        """Returns the numbers that depend on the number of images.

        Args:
            steps_per_epoch: number > 0.

        Returns:
            A dict: `learning_rate`, its peak after scaling; `total_steps`;
            `warmup_steps`; `frozen_steps`, a dict by part.
        """
        total = round(self.epochs * steps_per_epoch)
        schedule = self.schedule
        scale = SCALINGS[schedule["scaling"]](self.batch_size)

        def steps(epochs: float, share: float) -> int:
            return int(min(epochs * steps_per_epoch, share * total, total - 1))

        return {
            "learning_rate": self.optimizer["learning_rate"] * scale,
            "total_steps": total,
            "warmup_steps": steps(
                schedule.get("warmup_epochs", 0),
                schedule.get("warmup_share", 1.0),
            ),
            "frozen_steps": {
                part: steps(epochs, schedule.get("frozen_share", 1.0))
                for part, epochs in schedule.get("frozen_epochs", {}).items()
            },
        }

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields, ready for JSON, without newer ones' defaults."""
        fields = dataclasses.asdict(self)
        if not fields["normalization"]:
            del fields["normalization"]
        # As in recipes of before there was a choice, whose hashes stay theirs.
        if fields["precision"] in (None, "float32"):
            del fields["precision"]
        return fields

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "Recipe":
        """Makes a recipe of `to_dict`'s fields, also of older versions.

        Raises:
            ValueError: if a field is missing or unknown.
        """
        fields = current_recipe(fields)
        check_recipe(fields)
        return cls(**fields)

    @property
    def hash(self) -> str:
        """The SHA-256 of the fields, as 64 hexadecimal digits."""
        return recipe_hash(self.to_dict())
