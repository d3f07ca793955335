"""The one contract of a method: augment, forward, objective, update."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kerassl import augmentation, encoders
from kerassl.augmentation.namespace import constant
from kerassl.distributed import (
    local_copy,
    mean_over_devices,
    on_one_device,
    scale_loss_for_keras,
)
from kerassl.image_format import channels_last
from kerassl.layers import MLPHead
from kerassl.networks import freeze_parts, frozen_parts
from kerassl.renamed import current_names
from kerassl.training.image_model import ImageModel, bound
from kerassl.training.inputs import Inputs, select
from kerassl.training.monitors import with_monitors
from kerassl.training.step import build_optimizer, follow_frozen, train_step

# The name that Keras gives the variable of every `SeedGenerator`.
SEED_STATE = "seed_generator_state"


class SelfSupervisedModel(ImageModel):
    """Trains an encoder on images that nobody labeled, with `fit`.

    A method is a subclass with three short methods and no `train_step`
    (`forward_views`, since PyTorch claims `forward` for every Keras layer):

    - `forward_views(views, training)`: a dict of views to a dict of outputs;
    - `objective(outputs)`: the outputs to a dict of scalars, `"loss"` and the
      metrics named in `metric_names`;
    - `after_update()`: what moves once the optimizer has stepped (a momentum
      network, normalized prototypes); by default nothing.

    It makes all its layers in `__init__`, built (`head` helps), so that shapes
    are known before data arrives. It says which views it needs: `num_views`,
    and `default_views`, the augmenter that it takes if none is given. State
    (momentum networks, queues) is non-trainable weights: it is saved, restored
    and distributed with the model.

    `fit` takes what Keras takes (arrays, `tf.data`, `PyDataset`, torch
    `DataLoader`, generators) and what `kerassl.data.load` returns, with or
    without labels: they are ignored, and so is what a dict holds besides
    `"image"`. Images are uint8 or float in [0, 255], of the encoder's channels
    and of any size that the augmenter takes. Views may also be given
    ready-made, as a dict with the augmenter's view names. `evaluate`,
    `validation_data`, `predict` and `embed` take the same, but `embed` no
    views.

    Args:
        encoder: `keras.Model` from images to features, or a KerasHub or KerasCV
            backbone, that normalizes its images; for others see
            `kerassl.encoders.as_encoder`.
        augmenter: `kerassl.augmentation.ViewAugmenter`, or any layer from
            images to a dict of views. By default the method's own, at the
            encoder's image size.
        **kwargs: the arguments of `keras.Model`.

    Raises:
        ValueError: if the encoder is none, or the augmenter makes another
            number of views than needed.

    Example:
    ```python
    class Twins(kerassl.methods.SelfSupervisedModel):
        num_views = 2

        def forward_views(self, views, training):
            return {
                name: self.encoder(view, training=training)
                for name, view in views.items()
            }

        def objective(self, outputs):
            difference = outputs["view_1"] - outputs["view_2"]
            return {"loss": keras.ops.mean(keras.ops.square(difference))}
    ```
    """

    #: The scalars besides `"loss"` that `objective` returns.
    metric_names: tuple[str, ...] = ()
    #: The number of views that it needs; `None` for any.
    num_views: int | None = None
    #: The smallest batch that it learns from.
    min_batch: int = 2
    #: What `draw` makes besides the views: a mask, a permutation.
    drawn_names: tuple[str, ...] = ()
    #: Whether batch normalization takes the statistics of all devices'
    #: batches, on TensorFlow and PyTorch; JAX always does.
    global_batch_norm: bool = True
    #: What to try when features collapse, for a warning.
    collapse_advice: str = "Try another learning rate or a longer warmup."
    #: From an image size to an augmenter. Wrap functions in `staticmethod`.
    default_views: Callable[[int], keras.layers.Layer] = staticmethod(
        augmentation.simclr
    )

    def __init__(
        self,
        encoder: Any,
        augmenter: keras.layers.Layer | None = None,
        **kwargs: Any,
    ):
        # Images stay as they come: float16 can't hold all of [0, 255] exactly.
        super().__init__(autocast=False, **kwargs)
        self.encoder = encoders.as_encoder(encoder)
        if augmenter is None:
            augmenter = self.default_views(encoders.image_size(self.encoder))
        found = list(augmenter.view_names)
        if self.num_views not in (None, len(found)):
            raise ValueError(
                f"{type(self).__name__} takes {self.num_views} views. The "
                f"augmenter makes {len(found)}: {found}."
            )
        self.augmenter = augmenter
        self.objective_metrics = [
            keras.metrics.Mean(name=name) for name in self.metric_names
        ]
        self.built = True

    def head(
        self, name: str, inputs: int, units: Sequence[int], **kwargs: Any
    ) -> MLPHead:
        """Returns a built `kerassl.layers.MLPHead` of the model's precision.

        Args:
            name: str, such as `"projector"`.
            inputs: int. The width of what it takes.
            units: as in `MLPHead`.
            **kwargs: the other arguments of `MLPHead`.
        """
        layer = MLPHead(units, dtype=self.dtype_policy, name=name, **kwargs)
        layer.build((None, inputs))
        return layer

    # === What a method writes ===

    def draw(self, count: Any) -> dict[str, Any]:
        """Draws what is random besides the views; by default nothing.

        Args:
            count: the number of images, maybe a scalar tensor.

        Returns:
            A dict with the names of `drawn_names`, for `forward_views`.
        """
        return {}

    def forward_views(
        self, views: dict[str, Any], training: bool = False
    ) -> dict[str, Any]:
        """Maps views to the outputs that the objective needs.

        Args:
            views: dict of name to images `(N, H, W, C)`, values in [0, 255],
                and of what `draw` made.
            training: bool.

        Returns:
            A dict of tensors.
        """
        raise NotImplementedError(
            f"{type(self).__name__} lacks `forward_views`."
        )

    def objective(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """Maps `forward_views`'s outputs to scalars.

        Args:
            outputs: what `forward_views` returned.

        Returns:
            A dict with `"loss"`, a float32 scalar to minimize, and a scalar
            for each of `metric_names`.
        """
        raise NotImplementedError(f"{type(self).__name__} lacks `objective`.")

    def after_update(self) -> None:
        """Moves what follows the optimizer's step. Assign to variables here."""

    def collapsed_loss(self, batch_size: int | None) -> float | None:
        """Returns the loss when all images have the same features.

        Near it nothing is learned, or everything is lost: see
        `kerassl.callbacks.CollapseMonitor`.

        Args:
            batch_size: int, or `None` if it isn't known.

        Returns:
            A float, or `None` if it isn't known.
        """
        return None

    def check_batch(self, size: int) -> None:
        """Refuses a batch that the method can't learn from.

        Args:
            size: int, the number of images, of all processes.

        Raises:
            ValueError: naming the cure.
        """
        if size < self.min_batch:
            raise ValueError(
                f"{type(self).__name__} needs several images, to compare or "
                "for batch normalization, and can't train on a batch of "
                f"{size} (maybe the last one). Choose a `batch_size` that "
                "leaves no single image, or drop it."
            )

    # === What Keras calls ===

    def call(self, inputs: Any, training: bool = False) -> dict[str, Any]:
        """Makes views, or takes ready ones, and runs `forward_views`."""
        return self.forward_views(self.make_views(inputs), training=training)

    def make_views(self, inputs: Any) -> dict[str, Any]:
        """Returns the views of a batch: ready-made ones, or new random ones.

        Args:
            inputs: images `(N, H, W, C)`; or a dict of views with the names of
                the augmenter's, and those of `drawn_names` or not; or a dict
                with the images under `"image"`, as TensorFlow Datasets has
                them.

        Returns:
            A dict of view name to images, with what `draw` made.

        Raises:
            ValueError: if the dict has neither, or the images have other
                channels than the encoder's.
        """
        views = self._views(inputs)
        given = inputs if isinstance(inputs, Mapping) else {}
        if not set(self.drawn_names) <= set(given):
            count = ops.shape(next(iter(views.values())))[0]
            given = self.draw(count)
        return {**views, **{name: given[name] for name in self.drawn_names}}

    def _views(self, inputs: Any) -> dict[str, Any]:
        inputs = select(inputs, self.augmenter.view_names)
        if isinstance(inputs, Mapping):
            return dict(inputs)
        channels = self.encoder.input_shape[-1]
        if len(inputs.shape) != 4 or inputs.shape[-1] != channels:
            raise ValueError(
                f"{self.name} needs images of shape (batch, height, width, "
                f"{channels}), channels last. Found: {tuple(inputs.shape)}"
            )
        return self.augmenter(inputs)

    def compile(self, optimizer: Any = "rmsprop", **kwargs: Any) -> None:
        """Configures the model for training, as `keras.Model.compile` does.

        Args:
            optimizer: the name of an optimizer, or an instance.
            **kwargs: the other arguments of `keras.Model.compile`, but
                `loss` and the metrics: the method brings its own.

        Raises:
            ValueError: if a loss or metrics are given.
        """
        given = [
            name
            for name in ("loss", "loss_weights", "metrics", "weighted_metrics")
            if kwargs.get(name) is not None
        ]
        if given:
            raise ValueError(
                f"{type(self).__name__} brings its own loss and metrics, and "
                f"ignores labels. Leave out {', '.join(given)}; to measure "
                "with labels, use `kerassl.callbacks.KNNMonitor`."
            )
        super().compile(optimizer=optimizer, **kwargs)
        follow_frozen(self)

    def compile_from_config(self, config: dict) -> None:
        """Compiles with a saved optimizer; Keras asks for it on loading."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        build_optimizer(self)

    def inputs_for(self, **kwargs: Any) -> Inputs:
        """Returns what reads images of any size, or ready-made views."""
        return Inputs(
            (None, None, self.encoder.input_shape[-1]),
            self.augmenter.view_names,
            self.drawn_names,
            **kwargs,
        )

    def fit(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Trains on images, as `keras.Model.fit` does; labels are ignored.

        Args:
            x: the data; see the class. What `kerassl.data.load` returns, or
                the images of it, is shuffled anew each epoch, the same way in
                each `fit`.
            *args: as in `keras.Model.fit`.
            **kwargs: as in `keras.Model.fit`. `validation_data` may be all
                that `x` may be.

        Returns:
            A `keras.callbacks.History`.

        Raises:
            ValueError: if images have another shape, type or range than they
                need, or a batch is too small: before the step that would see
                them, and before the first one where that is known.
        """
        given = bound(keras.Model.fit, self, x, *args, **kwargs)
        del given["self"]
        follow_frozen(self)
        callbacks = with_monitors(given.get("callbacks"), self.metric_names)
        return super().fit(**{**given, "callbacks": callbacks})

    def make_train_function(self, force: bool = False) -> Any:
        """Makes what `fit` and `train_on_batch` call at each step."""
        build_optimizer(self)
        return super().make_train_function(force)

    def train_step(self, *args: Any, **kwargs: Any) -> Any:
        """Runs Keras's step, then `after_update`."""
        return train_step(self, super().train_step, *args, **kwargs)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Returns the objective's loss, and keeps its metrics.

        Both are means over devices, of which each has a part of the batch. The
        metrics are means over images, as Keras's mean loss: a last, smaller
        batch counts for less.
        """
        scalars = {
            name: mean_over_devices(value)
            for name, value in self.objective(y_pred).items()
        }
        count = ops.shape(keras.tree.flatten(x)[0])[0]
        if isinstance(count, int):
            count = constant(ops, count)
        count = ops.cast(count, "float32")
        for metric in self.objective_metrics:
            metric.update_state(scalars[metric.name], sample_weight=count)
        return scale_loss_for_keras(scalars["loss"] + sum(self.losses))

    # === What a user calls ===

    def embed(
        self,
        images: Any,
        layer: str | None = None,
        batch_size: int = 256,
        verbose: int | str = 0,
    ) -> np.ndarray:
        """Returns the encoder's features, in inference mode.

        Args:
            images: array `(N, H, W, C)`, uint8 or float in [0, 255], of the
                encoder's size; or a data set of them, as for `fit`.
            layer: str, the name of a stage or layer of the encoder, one of
                `kerassl.encoders.stages(model.encoder)` or another; or
                `"stages"`, all of them side by side; by default its output.
            batch_size: int, for arrays.
            verbose: as in `keras.Model.predict`.

        Returns:
            A float32 NumPy array `(N, D)`.

        Raises:
            ValueError: if the images have another shape, type or range, or
                there is no such layer, with the nearest ones.
        """
        encoder = local_copy(self.encoder)
        return on_one_device(
            lambda: encoders.embed(encoder, images, layer, batch_size, verbose)
        )

    # === Saving ===

    def save_own_variables(self, store: Any) -> None:
        """Saves the model's own weights, and the state of all random seeds.

        Keras leaves seeds out; a run that goes on elsewhere must draw the views
        that it would have drawn here.
        """
        super().save_own_variables(store)
        for i, state in enumerate(self._seed_states()):
            store[f"seed_{i}"] = ops.convert_to_numpy(state)

    def load_own_variables(self, store: Any) -> None:
        """Loads what `save_own_variables` saved."""
        seeds = {
            f"seed_{i}": state for i, state in enumerate(self._seed_states())
        }
        missing = sorted(set(seeds) - set(store.keys()))
        if missing:
            raise ValueError(
                f"The file lacks the random state {missing} of {self.name}; "
                f"it holds {sorted(store.keys())}."
            )
        for name, state in seeds.items():
            state.assign(store[name])
        super().load_own_variables(
            {k: store[k] for k in store.keys() if k not in seeds}
        )

    def _seed_states(self) -> list:
        return [v for v in self.variables if v.name == SEED_STATE]

    def get_config(self) -> dict:
        """Returns the arguments of the constructor."""
        serialize: Callable = keras.saving.serialize_keras_object
        config = {
            "name": self.name,
            "dtype": serialize(self.dtype_policy),
            "encoder": serialize(self.encoder),
            "augmenter": serialize(self.augmenter),
        }
        # KerasHub's configs leave out what is frozen, and so do heads.
        frozen = frozen_parts(self)
        return {**config, "frozen": frozen} if frozen else config

    @classmethod
    def from_config(cls, config: dict, custom_objects: Any = None) -> Any:
        """Builds the model from `get_config`'s dict."""
        with channels_last():
            arguments = {
                key: keras.saving.deserialize_keras_object(
                    value, custom_objects=custom_objects
                )
                if isinstance(value, dict) and "class_name" in value
                else value
                for key, value in current_names(config).items()
                if key != "frozen"
            }
        if isinstance(arguments.get("encoder"), keras.Model):
            encoders.accepted(arguments["encoder"])  # It was an encoder.
        model = cls(**arguments)
        if "frozen" in config:
            freeze_parts(model, config["frozen"])
            follow_frozen(model)
        return model
