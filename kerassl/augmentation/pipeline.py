"""A list of operations as one function, with adjacent ones fused."""

import itertools
from collections.abc import Sequence
from typing import Any

from kerassl.augmentation import geometry
from kerassl.augmentation.namespace import clip
from kerassl.augmentation.operation import Operation, SpatialOperation
from kerassl.augmentation.operations import (
    BoxOperation,
    ColorOperation,
    RandomHorizontalFlip,
)


class Pipeline:
    """Applies operations in order to images: a pure function.

    Runs of spatial operations become two matrices per image, and runs of color
    operations share a layout. Everything else works on images.

    Args:
        operations: sequence of `Operation`.

    Attributes:
        num_uniforms: int, how many uniform numbers an image needs.
        size: int, the height and width of the output; or `None`, if it has the
            size of the input.
    """

    def __init__(self, operations: Sequence[Operation]):
        self.operations = tuple(operations)
        counts = [operation.num_uniforms for operation in self.operations]
        edges = list(itertools.accumulate(counts, initial=0))
        self.num_uniforms = edges[-1]
        sizes = [op.size for op in self.operations if op.size is not None]
        self.size = sizes[-1] if sizes else None
        # Runs of one kind: (kind, [(operation, first column, last column)]).
        self._runs: list[tuple[type, list]] = []
        for operation, first, last in zip(self.operations, edges, edges[1:]):
            kind = _kind(operation)
            if not self._runs or self._runs[-1][0] is not kind:
                self._runs.append((kind, []))
            self._runs[-1][1].append((operation, first, last))

    @property
    def is_fused(self) -> bool:
        """Whether it has no operation that works on whole images."""
        return all(kind is not Operation for kind, _ in self._runs)

    def __call__(
        self, xp: Any, images: Any, uniforms: Any, copies: int = 1
    ) -> Any:
        """Makes views of each image.

        Args:
            xp: namespace of array functions: `keras.ops`, or TensorFlow's.
            images: tensor `(B, H, W, C)` in [0, 255].
            uniforms: float32 tensor `(B * copies, num_uniforms)` in [0, 1).
            copies: int, the number of views of an image.

        Returns:
            Float32 tensor `(B * copies, size, size, C)` in [0, 255]: the first
            image's views, those of the second, and so on.
        """
        _, height, width, channels = images.shape
        x = xp.cast(images, "float32")
        if not self._runs or self._runs[0][0] is not SpatialOperation:
            x, copies = geometry.repeat(xp, x, copies), 1
        # Images are `(B, H, W, C)` in [0, 255], planes are `(B, C, H * W)` in
        # [0, 1]: the layout of colors, which resampling makes for free.
        planes = False
        for kind, run in self._runs:
            if kind is not Operation and not planes:
                x = x * (1 / 255)
            if kind is SpatialOperation:
                rows, columns = _matrices(xp, run, uniforms, height, width)
                if planes:
                    x = xp.reshape(x, (-1, channels, height, width))
                    x = geometry.resample_planes(xp, x, rows, columns)
                else:
                    x = geometry.resample(xp, x, rows, columns, copies)
                    copies = 1
                height = height if rows is None else rows.shape[1]
                width = width if columns is None else columns.shape[1]
                # Bicubic weights overshoot.
                x = clip(xp, x, 0.0, 1.0)
            elif kind is ColorOperation:
                if not planes:
                    x = geometry.to_planes(xp, x)
                for operation, first, last in run:
                    x = operation.recolor(
                        xp, x, uniforms[:, first:last], channels
                    )
            else:
                if planes:
                    x = geometry.to_images(xp, x, height, width, channels)
                    x = x * 255.0
                for operation, first, last in run:
                    x = operation.apply(xp, x, uniforms[:, first:last])
                    height = operation.size or height
                    width = operation.size or width
                    _check_result(operation, x, (height, width, channels))
                    x = xp.cast(x, "float32")
                    x = clip(xp, x, 0.0, 255.0)
            planes = kind is not Operation
        if planes:
            x = geometry.to_images(xp, x, height, width, channels) * 255.0
        return x


def _kind(operation: Operation) -> type:
    for kind in (SpatialOperation, ColorOperation):
        if isinstance(operation, kind):
            return kind
    return Operation


def _matrices(
    xp: Any, run: list, uniforms: Any, height: int, width: int
) -> tuple[Any, Any]:
    """Returns the product of the matrices of spatial operations."""
    rows = columns = None
    run = list(run)
    while run:
        operation, first, last = run.pop(0)
        arguments = [xp, uniforms[:, first:last], height, width]
        if (
            isinstance(operation, BoxOperation)
            and run
            and isinstance(run[0][0], RandomHorizontalFlip)
        ):
            # A resize computes its weights in reverse, without a matrix more.
            flip, first, last = run.pop(0)
            arguments.append(flip.flipped(xp, uniforms[:, first:last]))
        r, c = operation.matrices(*arguments)
        rows, columns = _product(xp, r, rows), _product(xp, c, columns)
        found = [
            extent if matrix is None else matrix.shape[1]
            for matrix, extent in ((r, height), (c, width))
        ]
        height, width = operation.size or height, operation.size or width
        if found != [height, width]:
            raise ValueError(
                f"`{type(operation).__name__}.matrices` must give {height} "
                f"rows and {width} columns, by its `size`. Found {found}."
            )
    return rows, columns


def _product(xp: Any, second: Any, first: Any) -> Any:
    """Returns the matrix that applies `first` and then `second`."""
    if first is None or second is None:
        return second if first is None else first
    return xp.matmul(second, first)


def _check_result(operation: Operation, x: Any, needed: tuple) -> None:
    found = tuple(x.shape)[1:]
    # TensorFlow may not know all of a shape.
    if len(found) != 3 or any(
        f is not None and f != n for f, n in zip(found, needed)
    ):
        raise ValueError(
            f"`{type(operation).__name__}.apply` must return images of shape "
            f"(batch, {', '.join(map(str, needed))}). Found shape "
            f"{tuple(x.shape)}."
        )
