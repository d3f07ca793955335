"""`kerassl export`: writes an encoder for other programs."""

import argparse
from typing import Any

from kerassl.cli.errors import user_errors
from kerassl.cli.loading import load_keras
from kerassl.cli.options import add_source, positive
from kerassl.export_formats import FORMATS, check_export
from kerassl.reading import one_line


def add_parser(commands: Any) -> None:
    """Adds the command to the parser's."""
    parser = commands.add_parser(
        "export",
        help="write an encoder for ONNX Runtime, LiteRT and others",
        description="Writes an encoder in a format that runs without kerassl "
        "and Keras. It takes float32 images (N, H, W, C) in [0, 255] and "
        "returns their features (N, D).",
    )
    parser.set_defaults(command=run)
    add = parser.add_argument
    add_source(parser)
    add("--format", required=True, metavar="FORMAT", help=", ".join(FORMATS))
    add(
        "--output",
        required=True,
        metavar="PATH",
        help="the file to write (.onnx, .tflite, .pt2), or the folder of a "
        "savedmodel",
    )
    add("--overwrite", action="store_true", help="replace it")
    add(
        "--image-size",
        type=positive,
        help="height and width of the images (the encoder's)",
    )


def run(options: argparse.Namespace) -> int:
    """Runs the command; returns the exit code."""
    with user_errors(ImportError):
        check_export(options.output, options.format, options.overwrite)
    load_keras()
    from kerassl import presets
    from kerassl.runs.subject import open_encoder

    with user_errors():
        encoder = open_encoder(options.source)
        path = presets.export(
            encoder,
            options.output,
            options.format,
            image_size=options.image_size,
            overwrite=options.overwrite,
        )
    size = options.image_size
    shape = (size, size) if size else encoder.input_shape[1:3]
    print(
        f"Wrote {one_line(str(path))}: images "
        f"{shape[0]}x{shape[1]}x{encoder.input_shape[-1]} in [0, 255] to "
        f"{encoder.output_shape[-1]:,} features"
    )
    return 0
