"""`kerassl report`: writes a page about a run."""

import argparse
from typing import Any

from kerassl.cli.errors import UserError, user_errors
from kerassl.cli.loading import load_keras
from kerassl.cli.options import (
    add_data_dir,
    add_max_unreadable,
    channels,
    positive,
)
from kerassl.reading import one_line
from kerassl.run_folder import read_settings


def add_parser(commands: Any) -> None:
    """Adds the command to the parser's."""
    parser = commands.add_parser(
        "report",
        help="write a page about a run",
        description="Writes a self-contained HTML page about a run: what ran, "
        "what looks wrong, scores, learning curves and pictures. To compare "
        "runs, score them together first: kerassl evaluate RUN --beside OTHER.",
    )
    parser.set_defaults(command=run)
    add = parser.add_argument
    add("folder", metavar="RUN", help="a run's folder")
    add("--data", help="the images to show (default: the run's)")
    add(
        "--images",
        type=positive,
        default=500,
        help="test images on the map; neighbors are searched in four times "
        "as many training images (500)",
    )
    add("--output", help="the file to write (default: RUN/report.html)")
    add_data_dir(parser)
    add_max_unreadable(parser, "default: the run's")
    add(
        "--channels",
        type=channels,
        metavar="R,G,B",
        help="show these channels, counted from 0, of images with more than "
        "three: three as red, green and blue, or one in gray (0,1,2)",
    )


def run(options: argparse.Namespace) -> int:
    """Runs the command; returns the exit code."""
    with user_errors():
        read_settings(options.folder)  # Fails before Keras is loaded.
    load_keras()
    from kerassl.report.page import Report
    from kerassl.visualization.figures import load_matplotlib

    with user_errors(ImportError):
        load_matplotlib()
    with user_errors():
        report = Report(
            options.folder,
            options.data,
            options.images,
            options.output,
            options.data_dir,
            options.max_unreadable,
            options.channels,
        )
    try:
        path = report.write()
    except OSError as error:
        raise UserError(f"The page can't be written: {error}") from error
    print(f"Wrote {one_line(str(path))}")
    return 0
