"""A few of many images."""

import numpy as np


def spread(count: int, most: int) -> np.ndarray:
    """Returns at most so many of `range(count)`, evenly spaced.

    The first ones could all belong to one class.
    """
    number = min(count, most)
    return np.arange(number) * count // max(1, number)
