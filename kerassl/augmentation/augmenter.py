"""The layer that makes random views of images, fused into a few matmuls."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from kerassl.augmentation import checks
from kerassl.augmentation.crops import crop_plan
from kerassl.augmentation.namespace import TensorFlowNamespace, is_foreign
from kerassl.augmentation.operation import Operation
from kerassl.augmentation.operations import ColorJitter, RandomGrayscale
from kerassl.augmentation.pipeline import Pipeline
from kerassl.augmentation.view import View
from kerassl.distributed import DeviceSeedGenerator
from kerassl.environment import has_accelerator
from kerassl.value_range import MAX_CHANNELS

Operations = View | Sequence[Operation]


@keras.saving.register_keras_serializable(package="kerassl")
class ViewAugmenter(keras.layers.Layer):
    """Makes random views of a batch of images.

    A view is made by a pipeline: a list of operations, applied in the order
    given, or a `View`, the short form of the papers' list. Adjacent crops,
    flips, resizes and blurs become two matrices per image, and each color
    operation a 3x3 matrix; so a view costs a few batched matmuls, with no
    gather and no loop over images, on any device. `docs/views.md` describes
    them and how to write your own.

    It runs inside the model by default, and in `dataset.map(augmenter)` under
    any backend, on batches or on single images. It makes views in inference
    mode too: `evaluate` needs them.

    Args:
        views: one pipeline, of which `num_views` views are made; or one
            pipeline for each view, as a list or as a dict with names. A list
            is one pipeline if its items are operations. If its items are
            themselves pipelines, `View`s or lists, it has one for each view.
        num_views: int > 0, only with one pipeline. By default 2.
        seed: int or `None`.
        **kwargs: the arguments of `keras.layers.Layer`. The views get the
            compute dtype of the `dtype` policy.

    Input shape: `(B, H, W, C)` or `(H, W, C)`, C of 1 to 16; uint8 or float in
    [0, 255].

    Output: a dict of name to views `(B, size, size, C)` in [0, 255]. The names
    are `view_1`, `view_2` and so on, unless `views` is a dict. The size is that
    of the last operation that sets one; without any, the images keep theirs.

    Raises:
        ValueError: if there is no view, `num_views` doesn't fit, or the images'
            shape doesn't.
        TypeError: if something is not an `Operation`.

    Example:
    ```python
    augmenter = ViewAugmenter(
        [RandomResizedCrop(32), RandomHorizontalFlip(), ColorJitter()]
    )
    views = augmenter(images)                  # {"view_1": ..., "view_2": ...}
    dataset = dataset.batch(256).map(augmenter)
    unequal = ViewAugmenter([View(32), View(32, blur=0.1, solarize=0.2)])
    ```

    Reference:
        - [Chen et al., 2020, SimCLR](https://arxiv.org/abs/2002.05709)
    """

    def __init__(
        self,
        views: Operations | Sequence[Operations] | Mapping[str, Operations],
        num_views: int | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(autocast=False, **kwargs)
        #: Name of each view to its pipeline, as given: a `View` or a tuple.
        self.views: dict[str, Any] = {
            name: operations_of(pipeline, f"views[{name!r}]")
            for name, pipeline in _by_name(views, num_views).items()
        }
        self._pipelines = {
            name: Pipeline(
                view.operations() if isinstance(view, View) else view
            )
            for name, view in self.views.items()
        }
        #: Where photos are cut while decoding; `None` if views begin otherwise.
        self.crop_plan = crop_plan(self._pipelines)
        self._after_crops = {
            name: Pipeline(made.operations[1:])
            for name, made in self._pipelines.items()
        }
        self._together = (
            [[name] for name in self._pipelines]
            if _is_cpu()
            else _equal(self._pipelines)
        )
        self.seed = seed
        self.seed_generator = DeviceSeedGenerator(seed)
        self._generator: Any = None
        self.built = True

    @property
    def num_uniforms(self) -> int:
        """How many random numbers an image needs."""
        return sum(made.num_uniforms for made in self._pipelines.values())

    @property
    def needs_color(self) -> bool:
        """Whether an operation changes RGB images only, at least in part."""
        return any(
            isinstance(operation, (ColorJitter, RandomGrayscale))
            for made in self._pipelines.values()
            for operation in made.operations
        )

    @property
    def view_names(self) -> list[str]:
        """The names of the views, in order."""
        return list(self.views)

    @property
    def sizes(self) -> dict[str, int | None]:
        """The height and width of each view in pixels, by name.

        `None` where a view keeps the size of the images.
        """
        return {name: made.size for name, made in self._pipelines.items()}

    def __call__(self, images: Any, **kwargs: Any) -> dict[str, Any]:
        """Makes the views; TensorFlow tensors come from a `tf.data` map."""
        if is_foreign(images):
            return self._map(images)
        return super().__call__(images, **kwargs)

    def call(self, images: Any) -> dict[str, Any]:
        """Maps images `(B, H, W, C)` to a dict of views.

        Given a dict of crops by view, `(B, size, size, C)`, which were cut as
        `crop_plan` says, it applies the operations after the first ones.
        """

        def draw(count: Any, numbers: int) -> Any:
            return keras.random.uniform(
                (count, numbers), dtype="float32", seed=self.seed_generator
            )

        return self._make(keras.ops, images, draw)

    def _map(self, images: Any) -> dict[str, Any]:
        import tensorflow as tf

        # A variable outside the pipeline's graph: an operation's own seed
        # would start again, with the same views, in every epoch.
        with tf.init_scope():
            if self._generator is None:
                self._generator = (
                    tf.random.Generator.from_non_deterministic_state()
                    if self.seed is None
                    else tf.random.Generator.from_seed(self.seed)
                )

        def draw(count: Any, numbers: int) -> Any:
            return self._generator.uniform((count, numbers))

        return self._make(TensorFlowNamespace(), images, draw)

    def _make(self, xp: Any, images: Any, draw: Callable) -> dict[str, Any]:
        crops = images if isinstance(images, Mapping) else None
        first = images if crops is None else next(iter(crops.values()))
        _check_images(first)
        single = len(first.shape) == 3
        if single:
            images = first = images[None]
        made: dict[str, Any] = {}
        count = xp.shape(first)[0]
        drawn = draw(count, self.num_uniforms)

        def take(count: Any, numbers: int) -> Any:
            nonlocal drawn
            taken, drawn = drawn[:, :numbers], drawn[:, numbers:]
            return taken

        columns = {
            name: take(count, pipeline.num_uniforms)
            for name, pipeline in self._pipelines.items()
        }
        for names in self._together:
            pipeline, copies = self._pipelines[names[0]], len(names)
            numbers = _side_by_side(xp, [columns[name] for name in names])
            if crops is None:
                views = pipeline(xp, images, numbers, copies)
            else:
                pipeline = self._after_crops[names[0]]
                # The first numbers are for the crop, which was made already.
                used = numbers.shape[-1] - pipeline.num_uniforms
                cut = _side_by_side(xp, [crops[name] for name in names])
                views = pipeline(xp, cut, numbers[:, used:])
            views = xp.reshape(views, (-1, copies, *views.shape[1:]))
            made |= {name: views[:, i] for i, name in enumerate(names)}
        made = {name: made[name] for name in self._pipelines}
        return {
            name: xp.cast(view[0] if single else view, self.compute_dtype)
            for name, view in self.finish(xp, made, take).items()
        }

    def finish(
        self, xp: Any, views: dict[str, Any], draw: Callable
    ) -> dict[str, Any]:
        """Returns the layer's output for these views; subclasses override it.

        Args:
            xp: namespace of array functions: `keras.ops`, or TensorFlow's.
            views: dict of name to float32 images `(B, size, size, C)`.
            draw: function of the batch's size and a count. Returns that many
                float32 numbers in [0, 1) per image, `(B, count)`. There are
                those that the subclass adds to `num_uniforms`.

        Returns:
            A dict with the names in `view_names`.
        """
        return views

    def compute_output_shape(self, input_shape: Sequence) -> dict[str, tuple]:
        """Returns the shape of each view."""
        *batch, height, width, channels = input_shape
        return {
            name: (*batch, size or height, size or width, channels)
            for name, size in self.sizes.items()
        }

    def get_config(self) -> dict:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "views": {
                name: config_of(view) for name, view in self.views.items()
            },
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: dict) -> "ViewAugmenter":
        """Builds the layer from `get_config`'s dict."""
        views = {
            name: from_config_of(view) for name, view in config["views"].items()
        }
        return cls(**{**config, "views": views})


def _side_by_side(xp: Any, rows: list[Any]) -> Any:
    """Returns the first rows of some `(B, ...)`, then their second rows, ..."""
    if len(rows) == 1 or not rows[0].shape[-1]:
        return rows[0]
    return xp.reshape(xp.stack(rows, axis=1), (-1, *rows[0].shape[1:]))


@functools.cache
def _is_cpu() -> bool:
    """Says whether views are made on a CPU.

    There, one view after the other fits the caches better. Elsewhere the number
    of operations counts, and equal views are made as one batch.
    """
    return not has_accelerator()


def _equal(pipelines: Mapping[str, Pipeline]) -> list[list[str]]:
    """Returns the names of the views, those that are equal side by side."""
    groups: list[list[str]] = []
    for name, made in pipelines.items():
        for names in groups:
            other = pipelines[names[0]]
            if made.is_fused and made.operations == other.operations:
                names.append(name)
                break
        else:
            groups.append([name])
    return groups


def _by_name(views: Any, num_views: int | None) -> Mapping[str, Operations]:
    """Returns the pipeline of each view; tells one pipeline from several."""
    if isinstance(views, Mapping):
        named = views
    else:
        items = views if isinstance(views, View) else _as_list(views, "views")
        if isinstance(items, View) or any(
            isinstance(item, Operation) for item in items
        ):
            if num_views is not None and num_views < 1:
                raise ValueError(
                    f"`num_views` must be positive. Received: {num_views}"
                )
            items, num_views = [items] * (num_views or 2), None
        named = {f"view_{i}": view for i, view in enumerate(items, start=1)}
    if num_views is not None:
        raise ValueError(
            "`num_views` is for a single pipeline. Received: num_views="
            f"{num_views} and a pipeline for each of {len(named)} views."
        )
    if not named:
        raise ValueError("`views` must hold at least one view.")
    return named


def _as_list(value: Any, name: str) -> list:
    if isinstance(value, (str, Mapping)) or not hasattr(value, "__iter__"):
        raise TypeError(
            f"`{name}` must be a `View` or a list of operations. "
            f"Received: {value!r}"
        )
    return list(value)


def operations_of(pipeline: Any, name: str) -> View | tuple[Operation, ...]:
    """Returns a pipeline, checked: a `View` or a tuple of operations.

    Args:
        pipeline: `View`, or sequence of `Operation`.
        name: str, the argument in messages.

    Raises:
        TypeError: if it is neither.
        ValueError: if an operation's `num_uniforms` or `size` is not valid.
    """
    if isinstance(pipeline, View):
        return pipeline
    operations = _as_list(pipeline, name)
    for i, operation in enumerate(operations):
        if not isinstance(operation, Operation):
            raise TypeError(
                f"`{name}[{i}]` must be a `kerassl.augmentation.Operation`. "
                f"Received: {operation!r}"
            )
        kind, count = type(operation).__name__, operation.num_uniforms
        if not isinstance(count, int) or count < 0:
            checks.refuse(f"{kind}.num_uniforms", count, "an int, 0 or more")
        if operation.size is not None:
            checks.check_size(f"{kind}.size", operation.size)
    return tuple(operations)


def config_of(view: Any) -> Any:
    """Returns a pipeline as JSON: a `View`'s fields, or a list."""
    if isinstance(view, View):
        return dataclasses.asdict(view)
    return [keras.saving.serialize_keras_object(step) for step in view]


def from_config_of(config: Any) -> Any:
    """Returns the pipeline that `config_of` got."""
    if isinstance(config, Mapping):
        return View(**config)
    return [keras.saving.deserialize_keras_object(step) for step in config]


def _check_images(images: Any) -> None:
    shape = tuple(images.shape)
    if (
        len(shape) not in (3, 4)
        or shape[-1] not in range(1, MAX_CHANNELS + 1)
        or None in shape[-3:]
    ):
        raise ValueError(
            "Views are made of images (batch, height, width, channels) of a "
            f"fixed size, channels last, with 1 to {MAX_CHANNELS} channels. "
            f"Found shape {shape}."
        )
