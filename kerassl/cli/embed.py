"""`kerassl embed`: writes the features of images to a file."""

import argparse
from typing import Any

from kerassl.cli.errors import UserError, print_note, user_errors
from kerassl.cli.loading import load_keras
from kerassl.cli.options import (
    DATA,
    add_data_dir,
    add_max_unreadable,
    add_range,
    add_source,
    check_data,
    positive,
)
from kerassl.feature_files import check_feature_file
from kerassl.reading import one_line
from kerassl.run_folder import best_note


def add_parser(commands: Any) -> None:
    """Adds the command to the parser's."""
    parser = commands.add_parser(
        "embed",
        help="write the features of images to a file",
        description="Writes the features of images to a file, with their "
        "labels, if any, and the paths of a folder's files. After an "
        "interruption the same command continues, with the same result.",
    )
    parser.set_defaults(command=run)
    add = parser.add_argument
    add_source(parser)
    add("data", metavar="DATA", help=DATA)
    add(
        "--output",
        required=True,
        metavar="FILE",
        help="the file to write: .npz, .parquet, or .npy for the features only",
    )
    add("--overwrite", action="store_true", help="replace the file")
    add(
        "--split",
        default="train",
        help="train (the default), test, validation, or with TFDS a slice "
        "such as 'train[:1000]'",
    )
    add("--limit", type=positive, help="embed this many images at most")
    add(
        "--layer",
        help="the stage whose features to write, or `stages` to concatenate "
        "all (the encoder's output)",
    )
    add(
        "--patches",
        action="store_true",
        help="write the features of each patch, or of each position of the "
        "last map: (N, h, w, D)",
    )
    add(
        "--batch-size",
        type=positive,
        default=256,
        help="the images that are embedded at once (256)",
    )
    add_max_unreadable(parser)
    add_range(parser, "(default: that of the training)")
    add_data_dir(parser)


def run(options: argparse.Namespace) -> int:
    """Runs the command; returns the exit code."""
    with user_errors(ImportError):
        check_feature_file(options.output, options.overwrite)
    check_data(options.data)
    load_keras()
    from kerassl import runs
    from kerassl.cli.time_left import time_left

    with user_errors():
        file = runs.FeatureFile(
            options.source,
            options.data,
            options.output,
            split=options.split,
            layer=options.layer,
            patches=options.patches,
            limit=options.limit,
            batch_size=options.batch_size,
            data_dir=options.data_dir,
            max_unreadable=options.max_unreadable,
            value_range=options.value_range,
            overwrite=options.overwrite,
        )
    if note := best_note(options.source):
        print_note(note)
    if file.done:
        print_note(
            f"continuing what was interrupted: the features of {file.done:,} "
            f"of {file.count:,} images are written."
        )
    try:
        with time_left() as show:
            path = file.write(show)
    except OSError as error:
        raise UserError(f"The features can't be written: {error}") from error
    except KeyboardInterrupt:
        print_note(
            f"interrupted. The same command continues after {file.done:,} of "
            f"{file.count:,} images."
        )
        raise
    count, *grid, dim = file.shape
    each = f"{dim:,} features of each of {count:,} images"
    if grid:
        each = f"{each}, at {' x '.join(map(str, grid))} patches"
    print(f"Wrote {one_line(str(path))}: {each}")
    return 0
