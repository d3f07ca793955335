"""`kerassl evaluate`: measures what an encoder has learned."""

import argparse
import json
from typing import Any

from kerassl.cli.errors import user_errors
from kerassl.cli.types import positive

# The options that each protocol takes.
SETTINGS = {"knn": ("k", "temperature")}


def add_parser(commands: Any) -> None:
    """Adds the command to the parser's."""
    parser = commands.add_parser(
        "evaluate",
        help="measure an encoder on labelled images",
        description="Measures an encoder on labelled images: the training "
        "split is the bank, the test split is classified.",
    )
    parser.set_defaults(command=run)
    add = parser.add_argument
    add(
        "source",
        metavar="RUN",
        help="a run's folder, or a .keras file of an encoder",
    )
    add("--data", required=True, help="as in `kerassl pretrain`, with labels")
    add(
        "--protocol",
        default="knn",
        help="protocols with commas between them; so far only knn",
    )
    add("--train-limit", type=positive, help="training images at most")
    add("--test-limit", type=positive, help="test images at most")
    add("--k", type=positive, default=20, help="kNN's neighbours (20)")
    add(
        "--temperature",
        type=float,
        default=0.07,
        help="of kNN's weights (0.07)",
    )
    add("--data-dir", help="where TFDS keeps its data sets")
    add(
        "--json",
        action="store_true",
        help="print one JSON object as the last line",
    )


def run(options: argparse.Namespace) -> int:
    """Runs the command; returns the exit code."""
    from kerassl import runs

    names = [name.strip() for name in options.protocol.split(",")]
    with user_errors():
        protocols = {
            name: runs.protocol(
                name,
                **{
                    key: getattr(options, key) for key in SETTINGS.get(name, ())
                },
            )
            for name in names
        }
        subject = runs.Evaluation(
            options.source,
            options.data,
            train_limit=options.train_limit,
            test_limit=options.test_limit,
            data_dir=options.data_dir,
        )
        for protocol in protocols.values():
            protocol.check(subject)
    scores = {name: p.measure(subject) for name, p in protocols.items()}
    print(f"{'protocol':12}{'accuracy':>10}{'untrained':>11}  settings")
    for name, score in scores.items():
        rest = dict(score)
        accuracy = rest.pop("accuracy")
        untrained = rest.pop("untrained_accuracy", None)
        floor = "" if untrained is None else f"{untrained:.4f}"
        values = ", ".join(f"{key} {value}" for key, value in rest.items())
        print(f"{name:12}{accuracy:>10.4f}{floor:>11}  {values}", flush=True)
    if options.json:
        print(
            json.dumps({"run": options.source, "data": options.data, **scores})
        )
    return 0
