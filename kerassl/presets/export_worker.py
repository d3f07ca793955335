"""A process that writes an encoder with the backend that its format needs."""

import sys
import tempfile
import warnings
from pathlib import Path

import keras

from kerassl.models import load_keras_file


def write(source: Path, path: Path, format: str) -> None:
    """Writes a saved encoder in a format of `kerassl.export_formats`."""
    encoder = load_keras_file(source)
    if format == "savedmodel":
        encoder.export(path, format="tf_saved_model", verbose=False)
    elif format == "litert":
        encoder.export(path, format="litert", verbose=False)
    elif format == "torch_export":
        _torch_export(encoder, path)
    else:
        _onnx(encoder, path)


def _torch_export(encoder: keras.Model, path: Path) -> None:
    import torch

    batch = {0: torch.export.Dim("batch")}
    encoder.export(path, format="torch", verbose=False, dynamic_shapes=batch)


def _onnx(encoder: keras.Model, path: Path) -> None:
    """By way of PyTorch's program.

    Keras's own way to ONNX doesn't take ViTs with an open batch size.
    """
    import torch

    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "encoder.pt2"
        _torch_export(encoder, program)
        exported = torch.export.load(program)
    onnx = torch.onnx.export(
        exported,
        input_names=["images"],
        output_names=["features"],
        dynamo=True,
        verbose=False,
    )
    assert onnx is not None
    onnx.save(str(path))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    write(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
