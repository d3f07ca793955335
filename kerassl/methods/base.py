"""The base class of all methods: augment, forward, objective, update."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from kerassl import augmentation, encoders
from kerassl.augmentation.namespace import array
from kerassl.data.batches import CROPS
from kerassl.distributed import mean_over_devices, scale_loss_for_keras
from kerassl.image_format import channels_last
from kerassl.layers import FeatureQueue, MLPHead, MomentumNetwork
from kerassl.methods.linked import LinkedModel
from kerassl.methods.views import views_for
from kerassl.models import uncompiled
from kerassl.networks import freeze_parts, frozen_parts
from kerassl.renamed import current_names
from kerassl.training.forms import select
from kerassl.training.inputs import Inputs
from kerassl.training.step import follow_frozen

_MISSING = object()


class SelfSupervisedModel(LinkedModel):
    """Trains an encoder on unlabeled images with `fit`.

    A method is a subclass with up to three short methods and no `train_step`:

    - `forward_views(views, training)` maps a dict of views to a dict of
      outputs (PyTorch uses `forward` for every Keras layer, hence the name);
    - `objective(outputs)` maps the outputs to a dict of scalars: `"loss"` and
      the metrics named in `metric_names`;
    - `after_update()` updates what follows the optimizer step (a momentum
      network, normalized prototypes); by default nothing.

    It creates and builds all its layers in `__init__` (`head` helps), so that
    shapes are known before data arrives. It declares the views it needs:
    `num_views`, and `default_views`, which makes the default augmenter. State
    (momentum networks, queues) is kept in non-trainable weights, so it is
    saved, restored and distributed with the model. `encode_views` runs the
    encoder once per view size, for views of several sizes (multi-crop).

    `fit` accepts the data that Keras accepts (arrays, `tf.data`, `PyDataset`,
    torch `DataLoader`, generators) and what `kerassl.data.load` returns.
    Labels are ignored, and so are all entries of a dict other than `"image"`.
    Only with `needs_labels`, which a method sets to learn from labels too, the
    objective finds them in its outputs, under `"labels"`.
    Images are uint8 or float in [0, 255], with the encoder's number of
    channels and any size that the augmenter accepts. Views can also be passed
    ready-made, as a dict with the augmenter's view names. `evaluate`,
    `validation_data`, `predict` and `embed` accept the same data, except that
    `embed` takes no views.

    Args:
        encoder: `keras.Model` from images to features, or a KerasHub or KerasCV
            backbone, that normalizes its images; for others see
            `kerassl.encoders.as_encoder`.
        augmenter: `kerassl.augmentation.ViewAugmenter`, or any layer from
            images to a dict of views, whose names it has in `view_names`. By
            default the method's own, at the encoder's image size.
        **kwargs: the arguments of `keras.Model`.

    Raises:
        ValueError: if the encoder or the augmenter is not one, the augmenter
            makes the wrong number of views, or the encoder or the method can't
            take a view's size.

    Example:
    ```python
    class Twins(kerassl.methods.SelfSupervisedModel):
        num_views = 2

        def forward_views(self, views, training):
            return self.encode_views(views, training=training)

        def objective(self, outputs):
            difference = outputs["view_1"] - outputs["view_2"]
            return {"loss": keras.ops.mean(keras.ops.square(difference))}
    ```
    """

    min_batch = 2
    #: The number of views it needs; `None` for any number.
    num_views: int | None = None
    #: Whether every view must have the size of the encoder's images.
    one_size: bool = False
    #: The names of what `draw` makes, such as a mask or a permutation.
    drawn_names: tuple[str, ...] = ()
    #: Whether the model counts its training steps in the weight `steps`.
    counts_steps: bool = False
    #: Whether batch normalization uses the statistics of the global batch on
    #: TensorFlow and PyTorch. On JAX it always does.
    global_batch_norm: bool = True
    compiled_parts = ("forward_views", "objective")
    #: What recipes make a ViT's features of, as in `kerassl.encoders.build`:
    #: `"mean"` where the class token isn't trained.
    pooling: str | None = None
    #: Advice for the warning about collapsed features.
    collapse_advice: str = "Try another learning rate or a longer warmup."
    #: Makes an augmenter for an image size, and for the `local_size` of small
    #: views if it has that argument. Wrap functions in `staticmethod`.
    default_views: Callable[[int], keras.layers.Layer] = staticmethod(
        augmentation.simclr
    )

    def __init__(
        self,
        encoder: Any,
        augmenter: keras.layers.Layer | None = None,
        **kwargs: Any,
    ):
        # No autocast: float16 can't represent all of [0, 255] exactly.
        super().__init__(autocast=False, **kwargs)
        self.encoder = encoders.as_encoder(encoder)
        if augmenter is None:
            augmenter = views_for(self.encoder, self.default_views)
        elif not hasattr(augmenter, "view_names"):
            raise ValueError(
                "An augmenter maps images to a dict of views, and has their "
                "names in `view_names`, as `kerassl.augmentation.ViewAugmenter`"
                f" does. Received: {augmenter!r}. Or make the views before "
                '`fit`, without an augmenter: `fit({"view_1": ..., "view_2": '
                "...})`."
            )
        found = list(augmenter.view_names)
        if self.num_views not in (None, len(found)):
            raise ValueError(
                f"{type(self).__name__} takes {self.num_views} views. The "
                f"augmenter makes {len(found)}: {found}."
            )
        self.augmenter = augmenter
        sizes = getattr(augmenter, "sizes", {})
        wanted = self.encoder.input_shape[1]
        if self.one_size and wanted and {*sizes.values()} - {None, wanted}:
            raise ValueError(
                f"{type(self).__name__} takes views of the encoder's size, "
                f"{wanted} pixels. The augmenter makes {sizes}."
            )
        self.encoders_by_size = {
            str(self._size_of(view)): encoders.at_size(self.encoder, size)
            if (size := sizes.get(view))
            else self.encoder
            for view in found
        }
        self._momentum_at_sizes: Callable[[], dict] = dict
        self.objective_metrics = [
            keras.metrics.Mean(name=name) for name in self.metric_names
        ]
        if self.counts_steps:
            # JAX can't read the optimizer's own count inside a step.
            self.steps = self.add_weight(
                name="steps",
                dtype="int32",
                initializer="zeros",
                trainable=False,
            )
        self.built = True

    # === What a method uses ===

    def head(
        self, name: str, inputs: int, units: Sequence[int], **kwargs: Any
    ) -> MLPHead:
        """Returns a built `kerassl.layers.MLPHead` in the model's precision.

        Args:
            name: str, such as `"projector"`.
            inputs: int. The width of its input.
            units: as in `MLPHead`.
            **kwargs: the other arguments of `MLPHead`.

        Returns:
            A `kerassl.layers.MLPHead`.
        """
        layer = MLPHead(units, dtype=self.dtype_policy, name=name, **kwargs)
        layer.build((None, inputs))
        return layer

    def momentum_copy(
        self,
        momentum: Any,
        copy_weights: bool = True,
        names: Iterable[str] | None = None,
    ) -> MomentumNetwork:
        """Returns a momentum copy of the encoder; see `momentum_encoder_of`.

        Args:
            momentum: as in `kerassl.layers.MomentumNetwork`.
            copy_weights: likewise.
            names: the views that it will see; by default all.

        Returns:
            A `kerassl.layers.MomentumNetwork`.
        """
        copy = MomentumNetwork(self.encoder, momentum, copy_weights)
        own = self.encoder.input_shape[1]
        at_sizes = {
            size: copy
            if own is None or size == own
            else encoders.at_size(copy.network, size)
            for size in map(self._size_of, names or self.augmenter.view_names)
        }
        # In a function, so that Keras can't thaw their layers.
        self._momentum_at_sizes = lambda: at_sizes
        return copy

    def momentum_encoder_of(self, view: str) -> keras.layers.Layer:
        """Returns the copy that `momentum_copy` made, at the size of a view.

        Args:
            view: str, one of the augmenter's names.
        """
        return self._momentum_at_sizes()[self._size_of(view)]

    def untracked_networks(self) -> list[keras.Model]:
        """Returns the momentum encoder at other sizes than the encoder's."""
        return [
            network
            for network in self._momentum_at_sizes().values()
            if not isinstance(network, MomentumNetwork)
        ]

    def encode_views(
        self,
        views: Mapping[str, Any],
        names: Iterable[str] | None = None,
        head: Callable | None = None,
        training: bool = False,
    ) -> dict[str, Any]:
        """Returns the features of views, with one encoder pass per view size.

        Views of one size pass the encoder as one batch, with common batch
        statistics. Sizes are those of `augmenter.sizes`; a view that isn't
        listed there, or keeps the images' size, has the encoder's.

        Args:
            views: dict of name to images `(N, H, W, C)`.
            names: the views to encode; by default all of the augmenter's.
            head: layer or callable `(features, training=...)`, applied once to
                the features of all these views together.
            training: bool.

        Returns:
            A dict of view name to features, or to the head's output, `(N, D)`.
        """
        if names is None:
            names = self.augmenter.view_names
        by_size: dict[Any, list[str]] = {}
        for name in names:
            by_size.setdefault(self._size_of(name), []).append(name)
        passes = [
            self.encoder_of(same_size[0])(
                _joined([views[name] for name in same_size]), training=training
            )
            for same_size in by_size.values()
        ]
        features = _joined(passes)
        if head is not None:
            features = head(features, training=training)
        order = [name for same_size in by_size.values() for name in same_size]
        return dict(zip(order, ops.split(features, len(order))))

    def encoder_of(self, view: str) -> keras.Model:
        """Returns the encoder at the size of a view.

        Args:
            view: str, one of the augmenter's names.
        """
        return self.encoders_by_size[str(self._size_of(view))]

    def _size_of(self, view: str) -> Any:
        sizes = getattr(self.augmenter, "sizes", {})
        return sizes.get(view) or self.encoder.input_shape[1]

    # === What a method defines ===

    def draw(self, count: Any) -> dict[str, Any]:
        """Draws what is random besides the views; by default nothing.

        Args:
            count: the number of images, an int or a scalar tensor.

        Returns:
            A dict with the names in `drawn_names`, for `forward_views`.
        """
        return {}

    def forward_views(
        self, views: dict[str, Any], training: bool = False
    ) -> dict[str, Any]:
        """Maps views to the outputs that the objective needs.

        Args:
            views: dict of name to images `(N, H, W, C)`, values in [0, 255],
                with the result of `draw`.
            training: bool.

        Returns:
            A dict of tensors.
        """
        raise NotImplementedError(
            f"{type(self).__name__} lacks `forward_views`."
        )

    def objective(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """Maps the outputs of `forward_views` to scalars.

        Args:
            outputs: dict of tensors; with `needs_labels` also `"labels"`, an
                int tensor `(N,)`.

        Returns:
            A dict with `"loss"`, a float32 scalar to minimize, and a scalar
            for each of `metric_names`.
        """
        raise NotImplementedError(f"{type(self).__name__} lacks `objective`.")

    def after_update(self) -> None:
        """Assigns the weights that follow the optimizer step."""

    def check_batch(self, size: int) -> None:
        """Refuses a batch that the model can't train on.

        It is too small, or larger than one of the model's queues
        (`kerassl.layers.FeatureQueue`).

        Args:
            size: int, the number of images, of all processes.

        Raises:
            ValueError: with advice.
        """
        super().check_batch(size)
        for layer in self.layers:
            if isinstance(layer, FeatureQueue):
                layer.check_batch(size)

    def collapsed_loss(self, batch_size: int | None) -> float | None:
        """Returns the loss of a model that gives all images the same features.

        A loss that stays near this value has learned nothing or has collapsed:
        see `kerassl.callbacks.CollapseMonitor`.

        Args:
            batch_size: int, or `None` if it is unknown.

        Returns:
            A float, or `None` if it is unknown.
        """
        return None

    # === What Keras calls ===

    def call(self, inputs: Any, training: bool = False) -> dict[str, Any]:
        """Makes views, unless they are given, and runs `forward_views`."""
        return self.forward_views(self.make_views(inputs), training=training)

    def make_views(self, inputs: Any) -> dict[str, Any]:
        """Returns the views of a batch: the given ones, or new random ones.

        Args:
            inputs: images `(N, H, W, C)`; a dict of views with the augmenter's
                names, and optionally all of `drawn_names`; a dict with
                the images under `"image"`, as in TensorFlow Datasets; or one
                with crops of photos, from `ImageBatches`.

        Returns:
            A dict of view name to images, with the result of `draw`.

        Raises:
            ValueError: if the dict has neither, or only some of
                `drawn_names`, or the images' number of channels isn't the
                encoder's.
        """
        if isinstance(inputs, Mapping) and CROPS in inputs:
            views = self.augmenter(inputs[CROPS])
        else:
            views = select(inputs, self.augmenter.view_names, self.drawn_names)
        if not isinstance(views, Mapping):
            channels = self.encoder.input_shape[-1]
            if len(views.shape) != 4 or views.shape[-1] != channels:
                raise ValueError(
                    f"{self.name} needs images of shape (batch, height, width, "
                    f"{channels}), channels last. Found: {tuple(views.shape)}"
                )
            views = self.augmenter(views)
        if not set(self.drawn_names) <= set(views):
            count = ops.shape(next(iter(views.values())))[0]
            views = {**views, **self.draw(count)}
        return views

    def inputs_for(self, **kwargs: Any) -> Inputs:
        """Returns a reader of images of any size, or of ready-made views."""
        return Inputs(
            (None, None, self.encoder.input_shape[-1]),
            self.augmenter.view_names,
            self.drawn_names,
            plan=getattr(self.augmenter, "crop_plan", None),
            **kwargs,
        )

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Returns the objective's loss and updates its metrics.

        Both are means over devices, each of which has a part of the batch.
        Metrics are means over images, like Keras's mean loss: a smaller last
        batch counts for less.
        """
        if self.needs_labels:
            # Given to `train_on_batch` as an array, it still is one.
            labels = ops.reshape(ops.convert_to_tensor(y), (-1,))
            y_pred = {**y_pred, "labels": labels}
        scalars = {
            name: mean_over_devices(value)
            for name, value in self.objective(y_pred).items()
        }
        count = ops.shape(keras.tree.flatten(x)[0])[0]
        if isinstance(count, int):
            count = array(ops, count, scalars["loss"])
        count = ops.cast(count, "float32")
        for metric in self.objective_metrics:
            metric.update_state(scalars[metric.name], sample_weight=count)
        return scale_loss_for_keras(scalars["loss"] + sum(self.losses))

    # === Saving ===

    def get_config(self) -> dict:
        """Returns the arguments of the constructor.

        A subclass keeps each of its arguments in an attribute of the same name,
        and then needs no `get_config` of its own.

        Raises:
            ValueError: if it doesn't, and has none.
        """
        serialize: Callable = keras.saving.serialize_keras_object
        config = {
            "name": self.name,
            "dtype": serialize(self.dtype_policy),
            "encoder": serialize(self.encoder),
            "augmenter": serialize(self.augmenter),
        }
        for name in _arguments(type(self)):
            value: Any = getattr(self, name, _MISSING)
            if name in config:
                continue
            if value is not _MISSING and not inspect.ismethod(value):
                is_tuple = isinstance(value, tuple)
                config[name] = serialize(list(value) if is_tuple else value)
            elif type(self).get_config is SelfSupervisedModel.get_config:
                raise ValueError(
                    f"{type(self).__name__} does not keep its argument "
                    f"`{name}`, which a saved model needs: set `self.{name}`, "
                    "or override `get_config`."
                )
        # The configs of KerasHub's layers and of heads omit `trainable`.
        frozen = frozen_parts(self)
        return {**config, "frozen": frozen} if frozen else config

    @classmethod
    def from_config(cls, config: dict, custom_objects: Any = None) -> Any:
        """Builds the model from the dict that `get_config` returned."""
        with channels_last():
            arguments = {
                key: keras.saving.deserialize_keras_object(
                    value, custom_objects=custom_objects
                )
                if isinstance(value, dict) and "class_name" in value
                else value
                for key, value in current_names(uncompiled(config)).items()
                if key != "frozen"
            }
        for network in arguments.values():
            if isinstance(network, keras.Model):
                encoders.accepted(network)  # As when the model was made.
        model = cls(**arguments)
        if "frozen" in config:
            freeze_parts(model, config["frozen"])
            follow_frozen(model)
        return model


def _joined(tensors: list[Any]) -> Any:
    return tensors[0] if len(tensors) == 1 else ops.concatenate(tensors)


def _arguments(cls: type) -> list[str]:
    """Returns the names of a method's arguments."""
    names: list[str] = []
    for base in cls.__mro__[: cls.__mro__.index(SelfSupervisedModel)]:
        if own := vars(base).get("__init__"):
            found = inspect.getfullargspec(own)
            names += [*found.args[1:], *found.kwonlyargs]
            if found.varkw is None:
                break  # Nothing else reaches the bases.
    return names
