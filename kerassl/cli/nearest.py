"""`kerassl nearest`: finds the images that are most like some others."""

import argparse
import contextlib
import json
import os
from pathlib import Path
from typing import Any

from kerassl.cli.errors import UserError, user_errors
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
from kerassl.reading import one_line

#: The files that pictures are drawn to.
SUFFIXES = (".png", ".pdf", ".svg")


def add_parser(commands: Any) -> None:
    """Adds the command to the parser's."""
    parser = commands.add_parser(
        "nearest",
        help="find the images that are most like some others",
        description="Finds the images whose features are nearest to those of "
        "other images, by cosine similarity.",
    )
    parser.set_defaults(command=run)
    add = parser.add_argument
    add_source(parser)
    add("data", metavar="DATA", help=f"the images to search: {DATA}")
    add(
        "queries",
        metavar="IMAGE",
        nargs="+",
        help="an image file. If it is among the images to search, it isn't "
        "found itself",
    )
    add("--k", type=positive, default=5, help="how many to find (5)")
    add(
        "--output",
        metavar="FILE",
        help=f"draw them to this file ({', '.join(SUFFIXES)}), which is "
        "replaced",
    )
    add("--json", action="store_true", help="print one JSON object instead")
    add("--split", default="train", help="as in `kerassl embed` (train)")
    add("--limit", type=positive, help="search this many images at most")
    add_max_unreadable(parser)
    add_range(parser, "(default: that of the training)")
    add_data_dir(parser)


def run(options: argparse.Namespace) -> int:
    """Runs the command; returns the exit code."""
    for query in options.queries:
        if not os.path.isfile(query):
            raise UserError(f"There is no image file {query}.")
    check_data(options.data)
    output = Path(options.output) if options.output else None
    if output is not None:
        _check_output(output)
    load_keras()
    from kerassl import runs
    from kerassl.files import replacing
    from kerassl.runs.files import check_writable, folder_at
    from kerassl.visualization.figures import load_matplotlib

    with user_errors(ImportError), contextlib.ExitStack() as stack:
        if output is not None:  # Fails before the features are computed.
            load_matplotlib()
            stack.enter_context(folder_at(output.parent))
            check_writable(output.parent)
        search = runs.Search(
            options.source,
            options.data,
            split=options.split,
            limit=options.limit,
            data_dir=options.data_dir,
            max_unreadable=options.max_unreadable,
            value_range=options.value_range,
        )
        found = search.nearest(options.queries, options.k)
        if output is not None:
            with replacing(output) as temporary:
                search.draw(options.queries, found).savefig(temporary)
    rows = {q: search.rows(*pair) for q, pair in zip(options.queries, found)}
    if options.json:
        print(json.dumps(rows))
        return 0
    for query, near in rows.items():
        print(one_line(query))
        for row in near:
            where = one_line(row.get("path", f"image {row['index']}"))
            label = one_line(row.get("class", ""))
            print(f"  {row['similarity']:.3f}  {where}  {label}".rstrip())
    return 0


def _check_output(path: Path) -> None:
    """Refuses a path that no picture can be drawn to."""
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(
            f"The picture's file must end with {', '.join(SUFFIXES[:-1])} or "
            f"{SUFFIXES[-1]}. Received: {path}"
        )
    if path.is_dir():
        raise UserError(f"{path} is a folder. Give the path of a file.")
