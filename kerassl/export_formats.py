"""The formats of `kerassl export`; answered before Keras is loaded."""

import importlib.util
import os
from pathlib import Path
from typing import NamedTuple

from kerassl.choices import check_choice
from kerassl.files import check_named, other_entries


class Format(NamedTuple):
    """A format that other programs run.

    Attributes:
        suffix: str, of the file; empty for a folder.
        backend: str, Keras's backend that writes it.
        packages: what writing needs.
        extra: str, the extra of kerassl that installs these.
    """

    suffix: str
    backend: str
    packages: tuple[str, ...]
    extra: str


FORMATS = {
    "onnx": Format(".onnx", "torch", ("torch", "onnx", "onnxscript"), "onnx"),
    "litert": Format(".tflite", "tensorflow", ("tensorflow",), "tensorflow"),
    "savedmodel": Format("", "tensorflow", ("tensorflow",), "tensorflow"),
    "torch_export": Format(".pt2", "torch", ("torch",), "torch"),
}
# What a SavedModel's folder holds. Only a folder with the first and nothing
# else is replaced.
SAVED_MODEL = ("saved_model.pb", "fingerprint.pb", "variables", "assets")


def check_export(
    path: str | Path, format: str, overwrite: bool = False
) -> None:
    """Checks that an encoder can be exported to a path.

    Args:
        path: path of the file or folder.
        format: str, a name in `FORMATS`.
        overwrite: bool. Whether it may exist.

    Raises:
        ValueError: if there is no such format, or the suffix is another one.
        FileExistsError: if it exists, or holds something else than an export.
        ImportError: if a package that writes it isn't installed.
    """
    check_choice("format", format, FORMATS)
    path, wanted = Path(path), FORMATS[format]
    if path.suffix != wanted.suffix and wanted.suffix:
        raise ValueError(
            f"A file in the format {format} must end with {wanted.suffix}. "
            f"Received: {path}"
        )
    if path.exists() or path.is_symlink():
        own, others = path.is_file(), []
        if not wanted.suffix:
            names = os.listdir(path) if path.is_dir() else []
            others = other_entries(names, SAVED_MODEL)
            own = SAVED_MODEL[0] in names and not others
        if not own or path.is_symlink():
            raise FileExistsError(
                f"{path} exists already, and is nothing that was exported as "
                f"{format}"
                + (f": it holds {', '.join(others[:3])}" if others else "")
                + ". Choose another name."
            )
        check_named(path)
        if not overwrite:
            raise FileExistsError(
                f"{path} exists already. Choose another name, or `overwrite` "
                "(--overwrite) to replace it."
            )
    missing = [p for p in wanted.packages if not importlib.util.find_spec(p)]
    if missing:
        raise ImportError(
            f"The format {format} needs {', '.join(missing)}. Install it "
            f'with: pip install "kerassl[{wanted.extra}]"'
        )
