"""Crop, flip, antialiased resize and blur as two matrices per image.

Functions take `xp`, a namespace of array functions: `keras.ops`, or
TensorFlow's in a `tf.data` pipeline.
"""

import math
from typing import Any

from kerassl.augmentation.namespace import array, one_hot

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
    low, high = (share * height * width for share in area)
    areas = (low + (high - low) * uniforms["area"])[:, None]
    low, high = math.log(ratio[0]), math.log(ratio[1])
    ratios = (low + (high - low) * uniforms["ratio"])[:, None]
    # Height, then width, along axis 1: (B, 2, 10).
    ratios = xp.exp(ratios * array(xp, ((-1.0,), (1.0,)), ratios))
    sides = xp.round(xp.sqrt(areas * ratios))
    limits = array(xp, ((height,), (width,)), sides)
    fits = xp.cast((sides >= 1) & (sides <= limits), "float32")
    fits = xp.amin(fits, axis=1)
    # One-hot sums instead of a gather: (B, 10) is tiny, gathers are slow.
    first = one_hot(xp, xp.argmax(fits, axis=1), CANDIDATES)
    none = xp.amax(fits, axis=1, keepdims=True) < 0.5
    limits = limits[:, 0]
    central = _central_box(height, width, ratio)
    boxes = xp.where(
        none,
        array(xp, central, sides),
        xp.sum(sides * first[:, None], axis=-1),
    )
    room = limits - boxes
    drawn = xp.concatenate([uniforms["top"], uniforms["left"]], axis=-1)
    # The minimum is needed where the product rounds up to room + 1.
    starts = xp.minimum(xp.floor(drawn * (room + 1.0)), room)
    starts = xp.where(none, xp.floor(room / 2), starts)
    return starts[:, 0], starts[:, 1], boxes[:, 0], boxes[:, 1]


def _central_box(
    height: int, width: int, ratio: tuple[float, float]
) -> tuple[float, float]:
    """Returns height and width of the largest box with an allowed ratio."""
    if width / height < ratio[0]:
        return float(round(width / ratio[0])), float(width)
    if width / height > ratio[1]:
        return float(height), float(round(height * ratio[1]))
    return float(height), float(width)


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
    distance = distance / xp.maximum(scale, array(xp, 1.0, scale))
    if interpolation == "bilinear":
        weights = xp.maximum(1.0 - distance, array(xp, 0.0, distance))
    else:
        weights = _cubic(xp, distance)
    inside = (pixel >= start) & (pixel < start + length)
    weights = weights * xp.cast(inside, "float32")
    return weights / xp.sum(weights, axis=-1, keepdims=True)


def _cubic(xp: Any, distance: Any) -> Any:
    """Returns Keys's cubic kernel with a = -0.5, as in PIL and TensorFlow."""
    d = xp.minimum(distance, array(xp, 2.0, distance))
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


def resample(
    xp: Any, images: Any, rows: Any, columns: Any, copies: int = 1
) -> Any:
    """Applies a matrix to the rows and one to the columns of each image.

    Args:
        xp: namespace of array functions.
        images: float32 tensor `(B, H, W, C)`.
        rows: float32 tensor `(B, h, H)`, or `None` for all rows as they are.
        columns: float32 tensor `(B, w, W)`, or `None` likewise.
        copies: int, n. For n results of each image, one after the other, there
            are `B * n` matrices.

    Returns:
        Float32 tensor `(B * n, C, h * w)`: channels first, as the colors need
        it.
    """
    _, height, width, channels = images.shape
    # The inner matmul must never be `channels` wide: rows first, on the whole
    # lines of (W * C), then channels to the front for the columns.
    x = images
    if rows is None:
        x = repeat(xp, x, copies)
    else:
        # An image's copies are more rows of one product.
        new_height = rows.shape[1]
        if rows.shape[0] == 1:
            rows = xp.concatenate([rows] * copies, axis=1)
        rows = xp.reshape(rows, (-1, copies * new_height, height))
        x = xp.matmul(rows, xp.reshape(x, (-1, height, width * channels)))
        height = new_height
        x = xp.reshape(x, (-1, height, width, channels))
    x = xp.transpose(x, (0, 3, 1, 2))
    if columns is not None:
        x = xp.reshape(x, (-1, channels * height, width))
        x = xp.matmul(x, xp.transpose(columns, (0, 2, 1)))
        width = columns.shape[1]
    return xp.reshape(x, (-1, channels, height * width))


def repeat(xp: Any, images: Any, copies: int) -> Any:
    """Returns images `(B * copies, H, W, C)`, each so often in a row."""
    if copies == 1:
        return images
    shape = (-1, *images.shape[1:])
    return xp.reshape(xp.stack([images] * copies, axis=1), shape)


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
