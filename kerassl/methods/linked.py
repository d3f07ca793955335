"""What a user asks of a model beyond Keras: recipes, features and presets."""

from pathlib import Path
from typing import Any

import numpy as np

from kerassl import encoders
from kerassl.distributed import local_copy, on_one_device
from kerassl.registry import linked
from kerassl.training.image_model import ImageModel


class LinkedModel(ImageModel):
    """Builds itself from a recipe, embeds images, and saves its encoder.

    Methods know nothing of recipes and presets. These rooms register their
    functions in `kerassl.registry` when `kerassl` is imported.
    """

    #: The `kerassl.recipes.Recipe` of a model that `from_recipe` or
    #: `kerassl.recipes.build_model` built in this process.
    recipe: Any = None

    @property
    def feature_encoder(self) -> Any:
        """The network to evaluate and save: `encoder`, or its teacher."""
        return self.encoder

    @classmethod
    def from_recipe(
        cls,
        name: str = "cpu",
        *,
        image_shape: tuple[int, ...] | None = None,
        steps: int,
        encoder: Any = None,
        weights: Any = None,
        **changes: Any,
    ) -> Any:
        """Builds a compiled model from a recipe of the method.

        Sets the random seed of the process to the recipe's, so that each call
        gives the same first weights.

        Args:
            name: str, the name of a recipe: `"cpu"`, `"cifar"` or
                `"imagenet"`, or the path of a TOML file, as in
                `kerassl.recipes.get`. A class with several methods takes those
                of its default version (`MoCo`: `moco_v2`; `SimCLR`: `simclr`;
                `SimSiam`: `simsiam`); others are named in full, as in
                `"moco_v1/cpu"`.
            image_shape: `(height, width, channels)` of the images. Not needed
                if `encoder` is a model, or with `weights`.
            steps: int > 0, the number of training steps of the whole run:
                epochs times batches per epoch. Schedules of the learning rate
                and of momentum networks end there.
            encoder: a model, used instead of the recipe's encoder; or the name
                of one, as in `kerassl.encoders.names()`.
            weights: trained weights to go on from, instead of an encoder: a
                source as in `kerassl.load_encoder`, such as `"runs/a"` or
                `"hf://ada/resnet"`. The recipe becomes that of
                `kerassl.recipes.going_on`, before any changes.
            **changes: fields of the recipe, as in `kerassl.recipes.Recipe`.
                Dicts are merged into the recipe's:
                `optimizer={"learning_rate": 0.8}`, or
                `**{"optimizer.learning_rate": 0.8}`.

        Returns:
            A compiled model. Its `recipe` has the changes.

        Raises:
            ValueError: if there is no such recipe, field or argument, with the
                nearest names, or a value is out of its range.
            FileNotFoundError: if there are no such weights.

        Example:
        ```python
        steps = 10 * math.ceil(len(images) / 128)
        model = kerassl.SimCLR.from_recipe(
            "cpu", image_shape=(32, 32, 3), steps=steps
        )
        model.fit(
            images,
            epochs=model.recipe.epochs,
            batch_size=model.recipe.batch_size,
        )
        ```
        """
        build = linked("build")
        return build(cls, name, image_shape, steps, encoder, weights, **changes)

    def compile(self, optimizer: Any = "rmsprop", **kwargs: Any) -> None:
        """Configures the model for training, as `keras.Model.compile` does.

        Args:
            optimizer: the name of an optimizer, or an instance. `"auto"` takes
                that of the method's default recipe for the encoder's image
                size and this device (`kerassl.recipes.default`), at the
                recipe's learning rate for its batch size. The rate is
                constant: for schedules use `from_recipe`, which knows the
                length of the run.
            **kwargs: the other arguments of `keras.Model.compile`, except
                `loss` and the metrics: the method brings its own.

        Raises:
            ValueError: if a loss or metrics are given, or the optimizer is
                `"auto"` and the class has no recipes.
        """
        if isinstance(optimizer, str) and optimizer == "auto":
            optimizer = linked("optimizer")(self)
        super().compile(optimizer=optimizer, **kwargs)

    def embed(
        self,
        images: Any,
        layer: str | None = None,
        batch_size: int = 256,
        verbose: int | str = 0,
        *,
        patches: bool = False,
    ) -> np.ndarray:
        """Returns features of `feature_encoder`, in inference mode.

        Args:
            images: array `(N, H, W, C)`, uint8 or float in [0, 255], of the
                encoder's image size; or a data set of them, as for `fit`.
            layer: str, the name of a stage
                (`kerassl.encoders.stages(model.encoder)`) or of another layer
                of the encoder; or `"stages"`, for all stages concatenated. By
                default the encoder's output.
            batch_size: int, for arrays.
            verbose: as in `keras.Model.predict`.
            patches: bool. Whether to return the features of patches or of the
                last map's positions, as `kerassl.encoders.embed` does.

        Returns:
            A float32 NumPy array `(N, D)`, or `(N, h, w, D)` of patches.

        Raises:
            ValueError: if the images have another shape, type or range, or
                there is no such layer; the message lists similar names.
        """
        encoder = local_copy(self.feature_encoder)
        arguments = (images, layer, batch_size, verbose)
        return on_one_device(
            lambda: encoders.embed(encoder, *arguments, patches=patches)
        )

    def save_to_preset(self, preset_dir: str | Path, **arguments: Any) -> Path:
        """Saves the encoder as a preset, to publish or to load anywhere.

        Args:
            preset_dir: path of the folder to create.
            **arguments: further arguments of `kerassl.save_preset`, such as
                `license` and `datasets`.

        Returns:
            The folder's path.

        Raises:
            FileExistsError: as `kerassl.save_preset`.
            PresetError: as `kerassl.save_preset`.

        Example:
        ```python
        model.save_to_preset("presets/mine", license="apache-2.0")
        encoder = kerassl.load_encoder("presets/mine")
        ```
        """
        return linked("save_preset")(self, preset_dir, **arguments)
