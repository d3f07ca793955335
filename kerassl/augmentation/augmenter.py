"""The layer that makes random views of images, fused into a few matmuls."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import keras

from kerassl.augmentation import color, geometry
from kerassl.augmentation.namespace import (
    constant,
    is_foreign,
    tensorflow_namespace,
)
from kerassl.augmentation.view import View
from kerassl.distributed import DeviceSeedGenerator

# The uniform numbers of one view of one image, by name. Drawn in one call;
# everything else is a function of the images and of them.
UNIFORMS = {
    "area": geometry.CANDIDATES,
    "ratio": geometry.CANDIDATES,
    "top": 1,
    "left": 1,
    "flip": 1,
    "jitter": 1,
    "order": 4,
    "brightness": 1,
    "contrast": 1,
    "saturation": 1,
    "hue": 1,
    "grayscale": 1,
    "blur": 1,
    "sigma": 1,
    "solarize": 1,
}
UNIFORM_COUNT = sum(UNIFORMS.values())
_EDGES = list(itertools.accumulate(UNIFORMS.values(), initial=0))


@keras.saving.register_keras_serializable(package="kerassl")
class ViewAugmenter(keras.layers.Layer):
    """Makes random views of a batch of images.

    Crop, flip, antialiased resize and blur become two matrices per image, and
    each color operation a 3x3 matrix; so a view costs a few batched matmuls,
    with no gather and no loop over images, on any device. What is kept of the
    papers' pipelines, and what differs, is told in `docs/views.md`.

    It runs inside the model by default, and in `dataset.map(augmenter)` under
    any backend, on batches or on single images. It makes views in inference
    mode too: `evaluate` needs them.

    Args:
        views: sequence of `View`: `view_1`, `view_2` and so on; or a dict of
            name to `View`.
        seed: int or `None`.
        **kwargs: the arguments of `keras.layers.Layer`. The views get the
            compute dtype of the `dtype` policy.

    Input shape: `(B, H, W, C)` or `(H, W, C)`, C of 1 or 3; uint8 or float in
    [0, 255].

    Output: a dict of name to views `(B, size, size, C)` in [0, 255].

    Raises:
        ValueError: if there is no view, or the images' shape doesn't fit.

    Example:
    ```python
    augmenter = ViewAugmenter([View(32, blur=0.0)] * 2)
    views = augmenter(images)                  # {"view_1": ..., "view_2": ...}
    dataset = dataset.batch(256).map(augmenter)
    ```

    Reference:
        - [Chen et al., 2020, SimCLR](https://arxiv.org/abs/2002.05709)
    """

    def __init__(
        self,
        views: Sequence[View] | dict[str, View],
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(autocast=False, **kwargs)
        if not isinstance(views, dict):
            views = {f"view_{i}": view for i, view in enumerate(views, start=1)}
        if not views:
            raise ValueError("`views` must hold at least one view.")
        self.views = {
            name: view if isinstance(view, View) else View(**view)
            for name, view in views.items()
        }
        self.seed = seed
        self.seed_generator = DeviceSeedGenerator(seed)
        self._generator: Any = None
        self.built = True

    @property
    def view_names(self) -> list[str]:
        """The names of the views, in order."""
        return list(self.views)

    @property
    def sizes(self) -> dict[str, int]:
        """The height and width of each view in pixels, by name."""
        return {name: view.size for name, view in self.views.items()}

    def __call__(self, images: Any, **kwargs: Any) -> dict[str, Any]:
        """Makes the views; TensorFlow tensors come from a `tf.data` map."""
        if is_foreign(images):
            return self._map(images)
        return super().__call__(images, **kwargs)

    def call(self, images: Any) -> dict[str, Any]:
        """Maps images `(B, H, W, C)` to a dict of views."""

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

        return self._make(tensorflow_namespace(), images, draw)

    def _make(self, xp: Any, images: Any, draw: Callable) -> dict[str, Any]:
        self._check(images)
        single = len(images.shape) == 3
        if single:
            images = images[None]
        count = xp.shape(images)[0]
        made = {
            name: make_view(xp, images, draw(count, UNIFORM_COUNT), view)
            for name, view in self.views.items()
        }
        return {
            name: xp.cast(view[0] if single else view, self.compute_dtype)
            for name, view in self.finish(xp, made, draw).items()
        }

    def finish(
        self, xp: Any, views: dict[str, Any], draw: Callable
    ) -> dict[str, Any]:
        """Makes of the views what the layer returns; subclasses cut them.

        Args:
            xp: namespace of array functions: `keras.ops`, or TensorFlow's.
            views: dict of name to float32 images `(B, size, size, C)`.
            draw: from a batch's size and a count to as many float32 numbers in
                [0, 1) for each image, `(B, count)`.

        Returns:
            A dict with the names in `view_names`.
        """
        return views

    def _check(self, images: Any) -> None:
        shape = tuple(images.shape)
        if (
            len(shape) not in (3, 4)
            or shape[-1] not in (1, 3)
            or None in shape[-3:]
        ):
            raise ValueError(
                "Views are made of images (batch, height, width, channels) of "
                "a fixed size, channels last, with 1 or 3 channels. Found "
                f"shape {shape}."
            )

    def compute_output_shape(self, input_shape: Sequence) -> dict[str, tuple]:
        """Returns the shape of each view."""
        *batch, _, _, channels = input_shape
        return {
            name: (*batch, view.size, view.size, channels)
            for name, view in self.views.items()
        }

    def get_config(self) -> dict:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "views": {
                name: dataclasses.asdict(view)
                for name, view in self.views.items()
            },
            "seed": self.seed,
        }


def make_view(xp: Any, images: Any, uniforms: Any, view: View) -> Any:
    """Makes one view of each image: a function of images and random numbers.

    Args:
        xp: namespace of array functions: `keras.ops`, or TensorFlow's.
        images: tensor `(B, H, W, C)`, in [0, 255].
        uniforms: float32 tensor `(B, UNIFORM_COUNT)` in [0, 1).
        view: the parameters.

    Returns:
        Float32 tensor `(B, size, size, C)` in [0, 255].
    """
    _, height, width, channels = images.shape
    u = {
        name: uniforms[:, first:last]
        for name, first, last in zip(UNIFORMS, _EDGES, _EDGES[1:])
    }
    top, left, box_height, box_width = geometry.draw_box(
        xp, u, height, width, view.crop_area, view.crop_ratio
    )
    flip = xp.cast(u["flip"][:, 0] < view.flip, "float32")
    rows = geometry.resize_matrix(
        xp, top, box_height, None, view.size, height, view.interpolation
    )
    columns = geometry.resize_matrix(
        xp, left, box_width, flip, view.size, width, view.interpolation
    )
    if view.blur:
        low, high = view.blur_sigma
        blur = geometry.blur_matrix(
            xp,
            low + (high - low) * u["sigma"][:, 0],
            xp.cast(u["blur"][:, 0] < view.blur, "float32"),
            view.size,
        )
        rows = xp.matmul(blur, rows)
        columns = xp.matmul(blur, columns)
    x = xp.cast(images, "float32") * (1 / 255)
    x = geometry.resample(xp, x, rows, columns)
    # Bicubic weights overshoot.
    x = xp.clip(x, constant(xp, 0.0), constant(xp, 1.0))
    if view.jitter:
        x = color.jitter(xp, x, u, view, channels)
    if view.grayscale and channels == 3:
        x = color.grayscale(xp, x, u["grayscale"], view.grayscale)
    if view.solarize:
        x = color.solarize(
            xp, x, u["solarize"], view.solarize, view.solarize_threshold
        )
    x = xp.reshape(x, (-1, channels, view.size, view.size))
    return xp.transpose(x, (0, 2, 3, 1)) * 255.0
