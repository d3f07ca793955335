"""Reads the tensors of an untrusted checkpoint, without running its code."""

import argparse
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from kerassl.presets.format.info import PresetError, check
from kerassl.reading import one_line


def shape_of(value: Any) -> tuple[int, ...] | None:
    """Returns the shape of a dense array in memory, else `None`."""
    if isinstance(value, np.ndarray):
        return value.shape if value.dtype.kind in "fiub" else None
    torch = sys.modules.get("torch")
    is_dense = (
        torch is not None
        and isinstance(value, torch.Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not (value.is_quantized or value.is_complex())
    )
    return tuple(value.shape) if is_dense else None


def read_tensors(path: Path) -> Any:
    """Reads a file without running code from it.

    Args:
        path: of a PyTorch or a `.safetensors` file.

    Returns:
        The content, for PyTorch anything that it may store.

    Raises:
        FileNotFoundError: if there is no such file.
        ImportError: if PyTorch or safetensors is missing.
        PresetError: if the file can't be read as plain tensors.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    if path.suffix == ".safetensors":
        try:
            from safetensors.numpy import load_file
        except ImportError as error:
            raise ImportError(
                f"Reading {path} needs safetensors: pip install safetensors"
            ) from error
        try:
            return load_file(path)
        except Exception as error:
            raise PresetError(
                f"{path} can't be read as plain tensors: "
                f"{one_line(str(error), 500)}"
            ) from error
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"Reading {path} needs PyTorch: pip install torch. The preset will "
            "not need it, nor does the Keras backend."
        ) from error
    _check_packed(path)
    # DINO saves its settings in a Namespace.
    with torch.serialization.safe_globals([argparse.Namespace]):
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise PresetError(
                f"{path} can't be read as plain tensors, and kerassl runs no "
                f"code from checkpoints: {one_line(str(error), 500)}"
            ) from error


def _check_packed(path: Path) -> None:
    """Refuses an archive that is compressed."""
    if not zipfile.is_zipfile(path):
        return  # PyTorch's older format, which isn't an archive
    held = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            files = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise PresetError(f"{path} is a broken archive: {error}") from error
    size = sum(file.file_size for file in files)
    check(
        size <= held
        and all(file.compress_type == zipfile.ZIP_STORED for file in files),
        f"{path} has {held:,} bytes and would unpack to {size:,}. PyTorch "
        "doesn't compress checkpoints: save it again with torch.save.",
    )
