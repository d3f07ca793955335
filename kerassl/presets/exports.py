"""Writes encoders in formats that other programs run."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import keras

from kerassl import encoders
from kerassl.environment import child_variables
from kerassl.export_formats import FORMATS, check_export
from kerassl.files import PARTIAL, replace_folder
from kerassl.image_format import flat_layers
from kerassl.layers import TokensAtSize
from kerassl.layers.saved_positions import keep_positions
from kerassl.models import in_float32
from kerassl.networks import trained_encoder
from kerassl.reading import one_line


def export(
    encoder: keras.Model,
    path: str | Path,
    format: str,
    *,
    image_size: int | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes an encoder in a format that runs without kerassl and Keras.

    The program takes any number of float32 images `(N, H, W, C)` in [0, 255],
    and returns their float32 features `(N, D)`: normalization is inside.

    | format | written to | run by |
    |---|---|---|
    | `"onnx"` | `.onnx` | ONNX Runtime: input `images`, output `features` |
    | `"litert"` | `.tflite` | LiteRT (TensorFlow Lite); resize its input |
    | `"savedmodel"` | a folder | `tf.saved_model.load(path).serve(images)` |
    | `"torch_export"` | `.pt2` | `torch.export.load(path).module()(images)` |

    One backend writes each format, whichever is in use: PyTorch the first and
    the last one, TensorFlow the others, in a process of its own on the CPU.

    Args:
        encoder: `keras.Model` from images to features, of layers of Keras and
            KerasHub; or a training model, whose encoder is written.
        path: path of the file or folder to write.
        format: str, as in the table.
        image_size: int, height and width of the images, for an encoder that
            takes any; by default its own.
        overwrite: bool. Whether to replace the file or folder.

    Returns:
        The path.

    Raises:
        ValueError: if the format or the suffix is wrong, the size of the
            images isn't known, or the encoder can't be written.
        FileExistsError: if the path exists.
        ImportError: if a package that writes it isn't installed.

    Example:
    ```python
    encoder = kerassl.load_encoder("runs/a")
    kerassl.presets.export(encoder, "encoder.onnx", "onnx")

    session = onnxruntime.InferenceSession("encoder.onnx")
    (features,) = session.run(None, {"images": images.astype("float32")})
    ```
    """
    check_export(path, format, overwrite)
    path = Path(path)
    encoder = encoders.as_encoder(trained_encoder(encoder))
    if image_size is not None:
        encoder = encoders.at_size(encoder, image_size)
        if any(isinstance(x, TokensAtSize) for x in flat_layers(encoder)):
            raise ValueError(
                f"The positions of {encoder.name!r} are for another size than "
                f"{image_size}. Leave out `image_size` (--image-size), or "
                "export what kerassl.load_encoder(source, image_shape=...) "
                "returns."
            )
    encoder = in_float32(encoder)
    if None in encoder.input_shape[1:]:
        raise ValueError(
            "The encoder takes images of any size, and an exported one takes "
            "one: give `image_size` (--image-size)."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=PARTIAL, dir=path.parent) as folder:
        source = Path(folder) / "encoder.keras"
        written = Path(folder) / f"encoder{FORMATS[format].suffix}"
        keep_positions(encoder)
        encoder.save(source)
        _run(source, written, format)
        if written.with_name(f"{written.name}.data").exists():
            raise ValueError(
                f"{encoder.name!r} is too large for one file as {format}: "
                "PyTorch writes its weights beside it. Take torch_export."
            )
        check_export(path, format, overwrite)  # Writing takes minutes.
        if written.is_dir():
            replace_folder(written, path)
        else:
            os.replace(written, path)
    return path


def _run(source: Path, path: Path, format: str) -> None:
    """Writes a saved encoder in a process with the format's backend."""
    environment = {
        **child_variables(),
        "KERAS_BACKEND": FORMATS[format].backend,
        # A program that is written on a GPU may run only there.
        "CUDA_VISIBLE_DEVICES": "",
        "KERAS_TORCH_DEVICE": "cpu",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    worker = [sys.executable, "-m", f"{__package__}.export_worker"]
    done = subprocess.run(
        [*worker, str(source), str(path), format],
        env=environment,
        capture_output=True,
        text=True,
        errors="replace",
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise ValueError(
            f"The encoder can't be written as {format}: {one_line(lines[-1])}"
        )
