"""What the numbers of images mean: which values become 0 and 255.

Everything behind `kerassl.data.load` takes images in [0, 255]. Images of
other ranges are mapped to it as they are read, and the range is recorded with
the run and the preset, so that a loaded encoder gets the same numbers.
"""

import dataclasses
import math
import numbers
from typing import Any, TypeAlias

import numpy as np

#: The number of channels that images can have at most.
MAX_CHANNELS = 16
_HOW = (
    "A range is LOW,HIGH, such as 0,10000, or percentiles, such as 1%,99% "
    "(--range, `value_range`)"
)


@dataclasses.dataclass(frozen=True)
class ValueRange:
    """The values that become 0 and 255; those outside are clipped.

    Args:
        low: tuple of floats, one for all channels or one for each.
        high: tuple of floats likewise, each above its `low`.

    Raises:
        ValueError: if they aren't.

    Example:
    ```python
    ValueRange((0.0,), (10_000.0,)).levels(reflectances)  # in [0, 255]
    ```
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        """Checks the numbers."""
        for name in ("low", "high"):
            values = tuple(float(value) for value in getattr(self, name))
            object.__setattr__(self, name, values)
        if (
            len(self.low) != len(self.high)
            or not 1 <= len(self.low) <= MAX_CHANNELS
            or not all(map(math.isfinite, (*self.low, *self.high)))
            or not all(a < b for a, b in zip(self.low, self.high))
        ):
            raise ValueError(
                "A range needs a lowest value and a higher one, for all "
                f"channels or for each. Received: {self}"
            )

    def __str__(self) -> str:
        """Returns the numbers, such as `"0 to 10000"`."""
        pairs = [f"{a:g} to {b:g}" for a, b in zip(self.low, self.high)]
        return ", ".join(pairs)

    def levels(self, pixels: np.ndarray) -> np.ndarray:
        """Maps values to [0, 255].

        Args:
            pixels: array `(..., C)` of numbers.

        Returns:
            A float32 array of the same shape.

        Raises:
            ValueError: if a value is NaN or infinite, or the range is one of
                another number of channels.
        """
        if len(self.low) not in (1, pixels.shape[-1]):
            raise ValueError(
                f"a range for each of {len(self.low)} channels, and there are "
                f"{pixels.shape[-1]} channels"
            )
        # float32 holds all integers up to 2**24.
        is_small = pixels.dtype.itemsize <= 2 or pixels.dtype == np.float32
        kind: Any = np.float32 if is_small else np.float64
        low, high = np.asarray(self.low, kind), np.asarray(self.high, kind)
        x = (pixels.astype(kind) - low) * (255 / (high - low))
        if pixels.dtype.kind == "f" and not np.isfinite(x).all():
            raise ValueError("NaN or infinite values")
        return np.clip(x, 0, 255).astype(np.float32)

    def to_dict(self) -> dict[str, list[float]]:
        """Returns the numbers, ready for JSON."""
        return {"low": list(self.low), "high": list(self.high)}


@dataclasses.dataclass(frozen=True)
class Percentiles:
    """A range to be measured: percentiles of each channel.

    Args:
        low: float in [0, 100).
        high: float in (low, 100].

    Raises:
        ValueError: if they aren't.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        """Checks the numbers."""
        if not 0 <= self.low < self.high <= 100:
            raise ValueError(
                "Percentiles must be in [0%, 100%], the lower one first. "
                f"Received: {self.low:g}%,{self.high:g}%"
            )

    def measured(self, pixels: np.ndarray) -> ValueRange:
        """Returns the range of pixels `(N, C)`.

        Raises:
            ValueError: if nearly all values of a channel are the same.
        """
        pixels = pixels[np.isfinite(pixels).all(axis=-1)]
        if not len(pixels):
            raise ValueError("No image has finite values to measure a range.")
        low, high = np.percentile(pixels, (self.low, self.high), axis=0)
        if (flat := np.flatnonzero(low >= high)).size:
            raise ValueError(
                f"Channel {flat[0] + 1} has the same value {low[flat[0]]:g} at "
                f"{self.low:g}% and {self.high:g}%: state a range in numbers, "
                "as in --range 0,10000."
            )
        return ValueRange(tuple(low.tolist()), tuple(high.tolist()))


#: What users may state: a range, what is recorded of one, a pair of numbers
#: or of lists of them, a pair of strings such as "1%", or "LOW,HIGH".
Stated: TypeAlias = Any


def parse_range(value: Stated) -> ValueRange | Percentiles | None:
    """Returns the range that somebody stated.

    Args:
        value: `None`; a `ValueRange` or `Percentiles`; a pair of numbers,
            `(0, 1)`; a pair of lists with a number for each channel; a pair
            of percentiles, `("1%", "99%")`; either pair as a string,
            `"0,10000"` or `"1%,99%"`; or the dict of `ValueRange.to_dict`.

    Raises:
        ValueError: if it is none of these.

    Example:
    ```python
    parse_range("0,10000")  # ValueRange(low=(0.0,), high=(10000.0,))
    ```
    """
    if value is None or isinstance(value, (ValueRange, Percentiles)):
        return value
    parts = value
    if isinstance(value, dict) and set(value) == {"low", "high"}:
        parts = (value["low"], value["high"])
    elif isinstance(value, str):
        parts = [part.strip() for part in value.split(",")]
    try:
        low, high = parts
        if all(isinstance(p, str) and p.endswith("%") for p in (low, high)):
            return Percentiles(float(low[:-1]), float(high[:-1]))
        return ValueRange(_numbers(low), _numbers(high))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{_HOW}. Received: {value!r} ({error})") from error


def is_recorded(value: Any) -> bool:
    """Returns whether a value from a file is a dict of `ValueRange.to_dict`."""
    try:
        return (
            isinstance(value, dict)
            and set(value) == {"low", "high"}
            and all(isinstance(v, list) for v in value.values())
            and all(type(n) in (int, float) for v in value.values() for n in v)
            and bool(ValueRange(tuple(value["low"]), tuple(value["high"])))
        )
    except (ValueError, OverflowError):
        return False


def _numbers(value: Any) -> tuple[float, ...]:
    if isinstance(value, (str, numbers.Real)):
        return (float(value),)
    return tuple(float(one) for one in value)


def range_of(dtype: Any) -> ValueRange | None:
    """Returns the range that a dtype implies; `None` for uint8.

    Raises:
        ValueError: if it implies none, such as float32.
    """
    dtype = np.dtype(dtype)
    if dtype == np.uint8:
        return None
    if dtype == np.uint16:
        return ValueRange((0.0,), (65535.0,))
    raise ValueError(
        f"{dtype.name} pixels, whose range isn't known: state --range "
        "LOW,HIGH, or --range 1%,99%"
    )


def check_range_fits(value: ValueRange | None, channels: int) -> None:
    """Checks that a range is for so many channels.

    Raises:
        ValueError: if not.
    """
    if value is not None and len(value.low) not in (1, channels):
        raise ValueError(
            f"The range has {len(value.low)} pairs of values, and the images "
            f"have {channels} channels: give one pair, or one for each."
        )
