"""The interface of graphs and stock backbones, and checks that both need."""

import re
from typing import Any, NamedTuple

import keras

from kerassl.presets.format.info import check
from kerassl.reading import shown

# Module names that Keras and KerasHub write for exported classes: the public
# one, or the file's.
MODULES = {
    "keras": r"keras|keras\.models|keras\.src\.models\.functional",
    "keras.layers": r"keras\.layers",
    "keras_hub": r"keras_hub\.src(\.[a-z_0-9]+)+|keras_hub\.(models|layers)",
}
# The dtype float32, as Keras writes it.
FLOAT32 = {
    "module": "keras",
    "class_name": "DTypePolicy",
    "config": {"name": "float32"},
    "registered_name": None,
}


class Weight(NamedTuple):
    """A weight of a published model.

    Attributes:
        path: str, of its data set in the HDF5 file.
        name: str, the last parts of the variable's path in Keras.
        shape: tuple of ints.
    """

    path: str
    name: str
    shape: tuple[int, ...]


class Layout(NamedTuple):
    """An architecture's weights and output for images of one shape.

    Attributes:
        weights: list of `Weight`, in the order of `model.weights`.
        output_shape: tuple of ints and `None`, including the batch.
    """

    weights: list[Weight]
    output_shape: tuple[int | None, ...]


class Architecture:
    """A published model, checked but not built.

    Args:
        config: the content of `config.json`.

    Raises:
        PresetError: if it describes another kind of model, or an argument is
            out of bounds.
    """

    class_name: str
    image_shape: tuple[int | None, ...]

    def __init__(self, config: Any):
        raise NotImplementedError

    def layout(self, image_shape: tuple[int | None, ...]) -> Layout:
        """Returns the weights for images of a shape, without creating them.

        Raises:
            PresetError: if the architecture doesn't fit such images.
        """
        raise NotImplementedError

    def apply(self, images: Any) -> Any:
        """Creates the layers and calls them on images.

        Args:
            images: Keras tensor `(N, H, W, C)`.

        Returns:
            A Keras tensor.
        """
        raise NotImplementedError

    def model(self) -> keras.Model:
        """Returns the published model, with initial weights."""
        raise NotImplementedError


def check_order(model: Any, expected: list[Weight]) -> None:
    """Refuses a model whose weights differ from the expected ones.

    Raises:
        PresetError: naming the first weight whose path or shape differs.
    """
    found = [(v.path, tuple(v.shape)) for v in model.weights]
    check(
        len(found) == len(expected),
        f"{model.name} has {len(found)} weights, and {len(expected)} were "
        "expected.",
    )
    for (path, shape), weight in zip(found, expected):
        check(
            f"/{path}".endswith(f"/{weight.name}") and shape == weight.shape,
            f"{model.name} has the weight {path!r} {shape} where "
            f"{weight.name!r} {weight.shape} was expected. This Keras, "
            f"{keras.__version__}, or this KerasHub orders weights "
            "differently; try an older version.",
        )


def object_config(
    found: Any, class_name: Any, module: str, registered: str | None
) -> dict[str, Any]:
    """Returns the arguments of a serialized object of a known class.

    Args:
        found: the serialized object, from JSON.
        class_name: str, the expected class.
        module: str, its package or module, a key of `MODULES`.
        registered: str or `None`, its registered name.

    Returns:
        A dict.

    Raises:
        PresetError: if the class or its module is another.
    """
    check(
        isinstance(found, dict),
        f"Expected a {class_name}, found {shown(found)}.",
    )
    unknown = set(found) - {
        "module",
        "class_name",
        "config",
        "registered_name",
        "name",
        "inbound_nodes",
    }
    check(
        not unknown,
        f"The {class_name} has unknown entries: {shown(sorted(unknown))}.",
    )
    module_found = found.get("module")
    check(
        isinstance(module_found, str)
        and re.fullmatch(MODULES[module], module_found),
        f"The class {class_name} is attributed to the module "
        f"{shown(module_found)}, and must be from {module}.",
    )
    check(
        found.get("class_name") == class_name
        and found.get("registered_name") == registered,
        f"Found the class {shown(found.get('class_name'))}, registered as "
        f"{shown(found.get('registered_name'))}, instead of {class_name}.",
    )
    fields = found.get("config")
    check(isinstance(fields, dict), f"The {class_name} has no `config`.")
    return fields  # type: ignore[return-value]


def is_float32(value: Any) -> bool:
    """Whether a serialized dtype is float32."""
    return value in ("float32", FLOAT32)
