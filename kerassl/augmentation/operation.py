"""The base classes of the operations that a view is made of."""

import dataclasses
from typing import Any

from kerassl.augmentation import geometry


class Operation:
    """One step of the pipeline that makes a view.

    Subclass it to write your own; `docs/views.md` has a complete example. A
    dataclass is the shortest way: its fields are the arguments, and saving and
    comparing work without further code. Register it with
    `keras.saving.register_keras_serializable`, so that saved models load.

    An operation has no state and draws no random numbers itself. It states how
    many it needs, and gets that many per image.

    Attributes:
        num_uniforms: int >= 0, how many uniform numbers an image needs. By
            default 1.
        size: int, the height and width of the output in pixels; or `None`, the
            default, for an operation that keeps the size of its input.

    Example:
    ```python
    @keras.saving.register_keras_serializable(package="my_package")
    @dataclasses.dataclass(frozen=True)
    class Invert(Operation):
        probability: float = 0.1

        def apply(self, xp, images, uniforms):
            chosen = uniforms[:, :, None, None] < self.probability
            return xp.where(chosen, 255.0 - images, images)
    ```
    """

    num_uniforms: int = 1
    size: int | None = None

    def apply(self, xp: Any, images: Any, uniforms: Any) -> Any:
        """Returns the changed images: a pure function of its arguments.

        Use array functions from `xp` only, and treat every image on its own:
        the batch's size may be unknown.

        Args:
            xp: namespace of array functions: `keras.ops`; in a `tf.data`
                pipeline, TensorFlow's functions under the same names.
            images: float32 tensor `(B, H, W, C)` in [0, 255], C of 1 to 16.
            uniforms: float32 tensor `(B, num_uniforms)` in [0, 1).

        Returns:
            Float32 tensor `(B, H, W, C)`, or `(B, size, size, C)` if the
            operation has a `size`. Views clip it to [0, 255].
        """
        raise NotImplementedError(f"{type(self).__name__} must define `apply`.")

    def get_config(self) -> dict:
        """Returns the arguments of the constructor: a dataclass's fields."""
        if not dataclasses.is_dataclass(self):
            raise NotImplementedError(
                f"{type(self).__name__} must be a dataclass or define "
                "`get_config`."
            )
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.init
        }

    @classmethod
    def from_config(cls, config: dict) -> "Operation":
        """Builds the operation from `get_config`'s dict.

        JSON has no tuples: lists become tuples again.
        """
        return cls(
            **{
                name: tuple(value) if isinstance(value, list) else value
                for name, value in config.items()
            }
        )


class SpatialOperation(Operation):
    """An operation that moves or mixes pixels, as two matrices per image.

    Each row of its output is a weighted sum of rows of its input, and each
    column one of columns: crops, flips, resizes and blurs are of this kind.
    Subclasses define `matrices` in place of `apply`. The matrices of adjacent
    spatial operations are multiplied with each other, so that the images
    themselves are resampled once. They are clipped to [0, 255] after the last
    of these.
    """

    def matrices(
        self, xp: Any, uniforms: Any, height: int, width: int
    ) -> tuple[Any, Any]:
        """Returns the weights along both axes.

        Args:
            xp: namespace of array functions, as in `apply`.
            uniforms: float32 tensor `(B, num_uniforms)` in [0, 1).
            height: int, H, of the input.
            width: int, W.

        Returns:
            Rows `(B, h, H)` and columns `(B, w, W)`: float32 tensors, or `None`
            for an axis that stays as it is. h and w are `size`, if there is
            one. For weights that are the same for all images, B may be 1.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must define `matrices`."
        )

    def apply(self, xp: Any, images: Any, uniforms: Any) -> Any:
        """Applies the matrices to images `(B, H, W, C)`."""
        _, height, width, channels = images.shape
        rows, columns = self.matrices(xp, uniforms, height, width)
        x = geometry.resample(xp, images, rows, columns)
        height = height if rows is None else rows.shape[1]
        width = width if columns is None else columns.shape[1]
        return geometry.to_images(xp, x, height, width, channels)
