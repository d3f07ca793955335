"""Numbers the classes of labels of any dtype, jointly for all sets."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

Class = int | str


class Classes:
    """Numbers the classes of several sets of labels, in order of appearance.

    Labels are compared by value, whatever their dtype: 300 doesn't become 44
    as uint8, nor `"catfish"` `"cat"`, but `7`, `7.0` and `np.uint8(7)` are one
    class, and so are `"cat"` and `b"cat"`, since TensorFlow's strings are
    bytes. A mix of numbers and strings is refused.
    """

    def __init__(self) -> None:
        self.numbers: dict[Class, int] = {}
        self.name = ""  # Of the first set.

    def add(self, labels: Any, name: str = "labels") -> np.ndarray:
        """Returns the class numbers of labels; a new class gets the next one.

        Args:
            labels: array `(N,)` or `(N, 1)`, or a list, of ints, bools, whole
                floats, strings or bytes; NumPy's or any backend's.
            name: str, what error messages call the labels.

        Returns:
            An int64 array `(N,)`.

        Raises:
            ValueError: if the labels are something else, or numbers where
                earlier sets have strings.
        """
        values, indices = _distinct(label_array(labels, name), name)
        self._check_kind(values, name)
        numbers = [
            self.numbers.setdefault(v, len(self.numbers)) for v in values
        ]
        return np.array(numbers, "int64")[indices]

    def ranks(self) -> np.ndarray:
        """Returns the rank of each number's class in sorted order."""
        order = sorted(self.numbers)
        ranks = np.empty(len(order), "int64")
        ranks[[self.numbers[value] for value in order]] = np.arange(len(order))
        return ranks

    def _check_kind(self, values: list[Class], name: str) -> None:
        known = next(iter(self.numbers), None)
        if known is None:
            self.name = name
        elif values and isinstance(known, str) != isinstance(values[0], str):
            raise ValueError(
                "Labels must be numbers in all sets or strings in all sets. "
                f"Received: {known!r} in `{self.name}` and {values[0]!r} in "
                f"`{name}`"
            )


def encode_labels(
    sets: Mapping[str, Any],
) -> tuple[list[Class], list[np.ndarray]]:
    """Numbers the classes of sets of labels, in sorted order over all sets.

    Args:
        sets: dict from the name of a set, for error messages, to its labels;
            see `Classes.add`.

    Returns:
        A pair: a sorted list of the classes, ints or strings; and for each set
        an int64 array `(N,)` of indices into it.

    Raises:
        ValueError: see `Classes.add`.
    """
    classes = Classes()
    numbers = [classes.add(labels, name) for name, labels in sets.items()]
    ranks = classes.ranks()
    return sorted(classes.numbers), [ranks[one] for one in numbers]


def label_array(
    labels: Any, name: str = "labels", count: int | None = None
) -> np.ndarray:
    """Returns labels as a NumPy array `(N,)` of their own dtype.

    Args:
        labels: see `Classes.add`.
        name: str, what error messages call the labels.
        count: int, the number of labels needed, or `None`.

    Raises:
        ValueError: if the shape, the dtype or the number is wrong.
    """
    try:
        array = to_numpy(labels)
    except ValueError as error:  # Lists of different lengths.
        raise ValueError(
            f"`{name}` must be strings or integers of shape (N,): {error}"
        ) from error
    if np.ma.is_masked(labels):
        raise ValueError(f"`{name}` has masked labels. Leave them out.")
    if array.dtype.kind in "Uf" and isinstance(labels, (list, tuple)):
        # NumPy turns strings with numbers into strings, large ints to floats.
        array = np.array(labels, dtype=object).reshape(array.shape)
    if "float" in array.dtype.name and array.dtype.kind != "f":
        array = array.astype("float32")  # bfloat16
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]  # As in `keras.datasets.cifar10`.
    if array.ndim != 1 or array.dtype.kind not in "biufOSUT":
        cure = ""
        if array.ndim == 2 and array.shape[1] > 1:
            cure = ". For one-hot labels, use `labels.argmax(axis=1)`"
        raise ValueError(
            f"`{name}` must be strings or integers of shape (N,). Received: "
            f"shape={array.shape}, dtype={array.dtype}{cure}"
        )
    if count is not None and len(array) != count:
        raise ValueError(
            f"`{name}` must have one entry for each image. Received: "
            f"{len(array):,} labels for {count:,} images"
        )
    return array


def labels_by_name(*parts: Any) -> list[Any]:
    """Returns the labels of parts, as class names if numbers are ambiguous.

    Label 3 may be one class in one folder and another class in another folder.

    Args:
        *parts: `ImageData`, or pairs of images and labels.

    Returns:
        A list of arrays: names, if all parts have class names (or strings as
        labels) and these differ; otherwise the parts' own labels.
    """
    labels = [label_array(one) for _, one in parts]
    names = [getattr(part, "class_names", None) for part in parts]
    strings = [_are_strings(one) for one in labels]
    if len(set(names)) == 1 or not all(
        known is not None or one for known, one in zip(names, strings)
    ):
        return labels
    return [
        one if are_strings else _names(one, known)
        for one, known, are_strings in zip(labels, names, strings)
    ]


def _are_strings(labels: np.ndarray) -> bool:
    if labels.dtype.kind == "O":
        return len(labels) > 0 and isinstance(labels[0], (str, bytes))
    return labels.dtype.kind in "SUT"


def _names(labels: np.ndarray, names: Any) -> np.ndarray:
    # Some data sets use -1 for images without a class.
    known = dict(enumerate(names))
    found = [known.get(label, f"label {label}") for label in labels.tolist()]
    return np.array(found, dtype=object)


def check_classes(what: str, classes: list[Class], numbers: np.ndarray) -> None:
    """Checks that training labels have at least two classes.

    Args:
        what: str, what needs them, for the message.
        classes: the classes from `encode_labels`.
        numbers: int array, the training labels as indices into them.

    Raises:
        ValueError: if they have fewer.
    """
    found = np.unique(numbers)
    if len(found) < 2:
        raise ValueError(
            f"{what} needs training labels of at least two classes. Found: "
            f"{[classes[number] for number in found]}"
        )


def to_numpy(values: Any) -> np.ndarray:
    """Converts an array, a list or a tensor of any backend to NumPy."""
    if keras.ops.is_tensor(values):
        return np.asarray(keras.ops.convert_to_numpy(values))
    return np.asarray(values)


def _distinct(labels: np.ndarray, name: str) -> tuple[list[Class], np.ndarray]:
    """Returns the distinct labels, and the index of each label in them."""
    if labels.dtype.kind in "OSUT":
        rows = [_value(value, name) for value in labels.tolist()]
        if len({isinstance(value, str) for value in rows}) > 1:
            raise ValueError(f"`{name}` has both numbers and strings.")
        known: dict[Class, int] = {}
        found = [known.setdefault(value, len(known)) for value in rows]
        return list(known), np.array(found, "int64")
    distinct, inverse = np.unique(labels, return_inverse=True)
    values = [_value(value, name) for value in distinct.tolist()]
    return values, inverse.reshape(-1)


def _value(value: Any, name: str) -> Class:
    """Returns a label as an int or a string."""
    if getattr(value, "shape", None) == ():  # NumPy's or a backend's scalar.
        value = to_numpy(value).tolist()
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, (str, int)):
        return str(value) if isinstance(value, str) else int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    dtype = type(value).__name__
    raise ValueError(
        f"`{name}` must be strings or integers of shape (N,). It has "
        f"{value!r}, of dtype={'float64' if dtype == 'float' else dtype}"
    )
