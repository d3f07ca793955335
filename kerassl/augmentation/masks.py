"""Masks for inpainting: 1 where an image's pixels are hidden, 0 elsewhere.

Masks are pure functions of uniform numbers, so that all backends make the same
masks from the same numbers.
"""

from typing import Any

from keras import ops

from kerassl.augmentation import geometry
from kerassl.augmentation.namespace import array
from kerassl.image_format import LAST

# Four blocks of at most a quarter of the size: they hide at most a quarter of
# the area, even if none overlap.
BLOCKS = 4
# The authors' noise has one number per 1 / 0.06 pixels: 8 for 128 pixels.
NOISE = 8
# The share of the area that a random region hides.
REGION_AREA = (0.2, 0.3)
# The authors' weight of known pixels around a hole.
BAND_WEIGHT = 10.0

#: How many uniform numbers a mask of each kind takes.
UNIFORMS = {"center": 0, "blocks": 4 * BLOCKS, "region": NOISE**2 + 1}


def make_masks(kind: str, uniforms: Any, size: int, overlap: int) -> Any:
    """Makes masks from uniform numbers.

    Args:
        kind: str, one of `UNIFORMS`.
        uniforms: float32 tensor `(N, UNIFORMS[kind])` in [0, 1).
        size: int, the images' height and width.
        overlap: int, as in `center`; other kinds ignore it.

    Returns:
        Float32 tensor `(N, size, size, 1)`: 1 is hidden.
    """
    if kind == "center":
        count = ops.shape(uniforms)[0]
        return ops.ones((count, 1, 1, 1)) * center(size, overlap)
    return (blocks if kind == "blocks" else region)(uniforms, size)


def central(size: int) -> slice:
    """Returns the rows (and columns) of an image's central half."""
    start = (size - size // 2) // 2
    return slice(start, start + size // 2)


def center(size: int, overlap: int = 0) -> Any:
    """Returns the mask that hides the center.

    Args:
        size: int, the images' height and width.
        overlap: int >= 0, how many pixels smaller than the central half the
            hole is on each side.

    Returns:
        Float32 tensor `(1, size, size, 1)`: 1 is hidden.
    """
    half = central(size)
    first, last = half.start + overlap, half.stop - overlap
    pixel = ops.arange(size)
    line = ops.cast((pixel >= first) & (pixel < last), "float32")
    return (line[:, None] * line[None, :])[None, :, :, None]


def blocks(uniforms: Any, size: int) -> Any:
    """Returns masks that hide some rectangles, which may overlap.

    Args:
        uniforms: float32 tensor `(N, 16)` in [0, 1): the heights of the four
            blocks, then their widths, tops and lefts.
        size: int, the images' height and width.

    Returns:
        Float32 tensor `(N, size, size, 1)`: 1 is hidden. Sides are between a
        sixth and a quarter of the size.
    """
    u = ops.reshape(uniforms, (-1, 4, BLOCKS))
    largest = max(1, size // 4)
    smallest = max(1, size // 6)
    # The minima are needed where products round up.
    sides = smallest + ops.floor(u[:, :2] * (largest - smallest + 1.0))
    sides = ops.minimum(sides, array(ops, largest, sides))
    room = size - sides
    starts = ops.minimum(ops.floor(u[:, 2:] * (room + 1.0)), room)[..., None]
    pixel = ops.cast(ops.arange(size), "float32")
    inside = (pixel >= starts) & (pixel < starts + sides[..., None])
    inside = ops.cast(inside, "float32")
    # How many blocks cover a pixel: rows times columns, summed over blocks.
    rows, columns = ops.transpose(inside[:, 0], (0, 2, 1)), inside[:, 1]
    holes = ops.matmul(rows, columns)
    return ops.minimum(holes, array(ops, 1.0, holes))[..., None]


def region(uniforms: Any, size: int) -> Any:
    """Returns masks of random shape, which hide 20 to 30 % of each image.

    Noise of 8x8 numbers is enlarged, and the lowest values of each image are
    hidden, up to its share. (The authors cut masks out of one large pattern
    until they find one with such a share.)

    Args:
        uniforms: float32 tensor `(N, 65)` in [0, 1): the noise, then the number
            that selects the share.
        size: int, the images' height and width.

    Returns:
        Float32 tensor `(N, size, size, 1)`: 1 is hidden.
    """
    noise = ops.reshape(uniforms[:, :-1], (-1, NOISE, NOISE))
    enlarge = geometry.resize_matrix(
        ops,
        ops.zeros((1,)),
        ops.zeros((1,)) + float(NOISE),
        None,
        size,
        NOISE,
        "bicubic",
    )
    values = ops.matmul(
        ops.matmul(enlarge, noise), ops.transpose(enlarge, (0, 2, 1))
    )
    values = ops.reshape(values, (-1, size * size))
    low, high = REGION_AREA
    share = low + (high - low) * uniforms[:, -1:]
    rank = ops.cast(ops.floor(share * (size * size)), "int32")
    threshold = ops.take_along_axis(ops.sort(values, axis=1), rank, axis=1)
    hidden = ops.cast(values < threshold, "float32")
    return ops.reshape(hidden, (-1, size, size, 1))


def hole_weights(masks: Any, overlap: int) -> Any:
    """Returns weights for the pixels of holes and of a band around them.

    In the band the image is known, and its weight is larger: a prediction that
    fits there has no seam.

    Args:
        masks: float32 tensor `(N, S, S, 1)`: 1 is hidden.
        overlap: int >= 0, the band's width in pixels.

    Returns:
        Float32 tensor like `masks`: 1 in the hole, 10 in the band, 0 elsewhere.
    """
    wide = ops.max_pool(
        masks, 2 * overlap + 1, strides=1, padding="same", data_format=LAST
    )
    return masks + BAND_WEIGHT * (wide - masks)
