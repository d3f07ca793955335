"""Crop, flip, antialiased resize and blur as two matrices per image.

Functions take `xp`, a namespace of array functions: `keras.ops`, or
TensorFlow's in a `tf.data` pipeline.
"""

import math
from typing import Any

from kerassl.augmentation.namespace import constant, one_hot

# torchvision and TensorFlow draw up to ten boxes and take the first that fits.
CANDIDATES = 10


def draw_box(
    xp: Any,
    uniforms: dict[str, Any],
    height: int,
    width: int,
    area: tuple[float, float],
    ratio: tuple[float, float],
) -> tuple[Any, Any, Any, Any]:
    """Draws a box for each image, as torchvision's RandomResizedCrop does.

    Args:
        xp: namespace of array functions.
        uniforms: dict of `"area"` and `"ratio"`, `(B, 10)`; `"top"` and
            `"left"`, `(B, 1)`; all in [0, 1).
        height: int, the images' height in pixels.
        width: int, their width.
        area: (low, high) share of the image.
        ratio: (low, high) width over height.

    Returns:
        Top, left, box height and box width: float32 whole numbers, `(B,)`.
    """
    areas = height * width * (area[0] + (area[1] - area[0]) * uniforms["area"])
    low, high = math.log(ratio[0]), math.log(ratio[1])
    ratios = xp.exp(low + (high - low) * uniforms["ratio"])
    widths = xp.round(xp.sqrt(areas * ratios))
    heights = xp.round(xp.sqrt(areas / ratios))
    fits = (widths >= 1) & (widths <= width)
    fits = fits & (heights >= 1) & (heights <= height)
    fits = xp.cast(fits, "float32")
    # One-hot sums instead of a gather: (B, 10) is tiny, gathers are slow.
    first = one_hot(xp, xp.argmax(fits, axis=1), CANDIDATES)
    none = xp.sum(fits, axis=1) < 0.5
    central = _central_box(height, width, ratio)
    whole_height, whole_width = (constant(xp, side) for side in central)
    box_height = xp.where(none, whole_height, xp.sum(heights * first, axis=1))
    box_width = xp.where(none, whole_width, xp.sum(widths * first, axis=1))
    top = _offset(xp, uniforms["top"][:, 0], height - box_height)
    left = _offset(xp, uniforms["left"][:, 0], width - box_width)
    top = xp.where(none, xp.floor((height - whole_height) / 2), top)
    left = xp.where(none, xp.floor((width - whole_width) / 2), left)
    return top, left, box_height, box_width


def _central_box(
    height: int, width: int, ratio: tuple[float, float]
) -> tuple[float, float]:
    """Returns height and width of the largest box with an allowed ratio."""
    if width / height < ratio[0]:
        return float(round(width / ratio[0])), float(width)
    if width / height > ratio[1]:
        return float(height), float(round(height * ratio[1]))
    return float(height), float(width)


def _offset(xp: Any, uniform: Any, room: Any) -> Any:
    # The minimum is needed where the product rounds up to room + 1.
    return xp.minimum(xp.floor(uniform * (room + 1.0)), room)


def resize_matrix(
    xp: Any,
    start: Any,
    length: Any,
    flip: Any,
    size: int,
    extent: int,
    interpolation: str,
) -> Any:
    """Returns the weights that resample a range of pixels, as PIL does.

    Args:
        xp: namespace of array functions.
        start: float tensor `(B,)`, the first pixel of each range.
        length: float tensor `(B,)`, its length in pixels.
        flip: float tensor `(B,)`: 1 reverses the output, 0 doesn't. Or `None`.
        size: int, the number of output pixels.
        extent: int, the number of input pixels.
        interpolation: `"bilinear"` or `"bicubic"`.

    Returns:
        Float32 tensor `(B, size, extent)`, the rows sum to 1.
    """
    start, length = start[:, None, None], length[:, None, None]
    out = xp.cast(xp.arange(size), "float32")[None, :, None]
    if flip is not None:
        out = out + flip[:, None, None] * (size - 1 - 2 * out)
    pixel = xp.cast(xp.arange(extent), "float32")[None, None, :]
    scale = length / size
    center = start + (out + 0.5) * scale
    # Shrinking widens the filter: antialiasing.
    distance = xp.abs(pixel + 0.5 - center)
    distance = distance / xp.maximum(scale, constant(xp, 1.0))
    if interpolation == "bilinear":
        weights = xp.maximum(1.0 - distance, constant(xp, 0.0))
    else:
        weights = _cubic(xp, distance)
    inside = (pixel >= start) & (pixel < start + length)
    weights = weights * xp.cast(inside, "float32")
    return weights / xp.sum(weights, axis=-1, keepdims=True)


def _cubic(xp: Any, distance: Any) -> Any:
    """Returns Keys's cubic kernel with a = -0.5, as in PIL and TensorFlow."""
    d = xp.minimum(distance, constant(xp, 2.0))
    near = (1.5 * d - 2.5) * d * d + 1.0
    far = ((-0.5 * d + 2.5) * d - 4.0) * d + 2.0
    return xp.where(d < 1.0, near, far)


def blur_matrix(xp: Any, sigma: Any, blurred: Any, size: int) -> Any:
    """Returns a Gaussian blur along one axis, or the identity.

    Args:
        xp: namespace of array functions.
        sigma: float tensor `(B,)`, in pixels.
        blurred: float tensor `(B,)` of 0 and 1: whether to blur.
        size: int, the number of pixels.

    Returns:
        Float32 tensor `(B, size, size)`, the rows sum to 1: at the edges, the
        weights inside the image are renormalized.
    """
    pixel = xp.cast(xp.arange(size), "float32")
    squares = (pixel[:, None] - pixel[None, :]) ** 2
    # A sigma so narrow that all weights off the diagonal underflow to 0.
    narrow = 1e-2
    sigma = blurred * sigma + (1.0 - blurred) * narrow
    weights = xp.exp(-0.5 * squares[None] / (sigma * sigma)[:, None, None])
    return weights / xp.sum(weights, axis=-1, keepdims=True)


def flip_matrix(xp: Any, flip: Any, size: int) -> Any:
    """Returns a permutation that reverses pixels, or the identity.

    Args:
        xp: namespace of array functions.
        flip: float tensor `(B,)` of 0 and 1: whether to reverse.
        size: int, the number of pixels.

    Returns:
        Float32 tensor `(B, size, size)` of 0 and 1.
    """
    pixel = xp.cast(xp.arange(size), "float32")
    source = pixel + flip[:, None] * (size - 1 - 2 * pixel)
    return one_hot(xp, source, size)


def resample(xp: Any, images: Any, rows: Any, columns: Any) -> Any:
    """Applies a matrix to the rows and one to the columns of each image.

    Args:
        xp: namespace of array functions.
        images: float32 tensor `(B, H, W, C)`.
        rows: float32 tensor `(B, h, H)`, or `None` for all rows as they are.
        columns: float32 tensor `(B, w, W)`, or `None` likewise.

    Returns:
        Float32 tensor `(B, C, h * w)`: channels first, as the colors need it.
    """
    _, height, width, channels = images.shape
    # The inner matmul must never be `channels` wide: rows first, on the whole
    # lines of (W * C), then channels to the front for the columns.
    x = images
    if rows is not None:
        x = xp.matmul(rows, xp.reshape(x, (-1, height, width * channels)))
        height = rows.shape[1]
        x = xp.reshape(x, (-1, height, width, channels))
    x = xp.transpose(x, (0, 3, 1, 2))
    if columns is not None:
        x = xp.reshape(x, (-1, channels * height, width))
        x = xp.matmul(x, xp.transpose(columns, (0, 2, 1)))
        width = columns.shape[1]
    return xp.reshape(x, (-1, channels, height * width))


def resample_planes(xp: Any, x: Any, rows: Any, columns: Any) -> Any:
    """Does the same as `resample` to images `(B, C, H, W)`."""
    _, channels, height, width = x.shape
    if columns is not None:
        x = xp.reshape(x, (-1, channels * height, width))
        x = xp.matmul(x, xp.transpose(columns, (0, 2, 1)))
        width = columns.shape[1]
        x = xp.reshape(x, (-1, channels, height, width))
    if rows is not None:
        x = xp.matmul(rows[:, None], x)
        height = rows.shape[1]
    return xp.reshape(x, (-1, channels, height * width))


def to_planes(xp: Any, images: Any) -> Any:
    """Returns images `(B, H, W, C)` as `(B, C, H * W)`."""
    _, height, width, channels = images.shape
    x = xp.transpose(images, (0, 3, 1, 2))
    return xp.reshape(x, (-1, channels, height * width))


def to_images(xp: Any, x: Any, height: int, width: int, channels: int) -> Any:
    """Returns planes `(B, C, H * W)` as images `(B, H, W, C)`."""
    x = xp.reshape(x, (-1, channels, height, width))
    return xp.transpose(x, (0, 2, 3, 1))
