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
        metavar="SOURCE",
        help="a run's folder, a preset (its name, hf://owner/name or its "
        "folder), or a .keras file of an encoder",
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
    print(f"{'protocol':24}{'accuracy':>10}{'untrained':>11}  settings")
    for name, score in scores.items():
        _print(name, score)
    if options.json:
        print(
            json.dumps({"run": options.source, "data": options.data, **scores})
        )
    return 0


def _print(name: str, score: dict[str, Any]) -> None:
    """Prints a protocol's scores in one line, and a line for each stage."""
    rest = dict(score)
    accuracy, floor = rest.pop("accuracy"), rest.pop("untrained_accuracy", None)
    stages, floors = rest.pop("stages", {}), rest.pop("untrained_stages", {})
    best = rest.pop("best_stage", None)
    settings = ", ".join(f"{key} {value}" for key, value in rest.items())
    rows = [(name, accuracy, floor, settings)]
    for stage, value in stages.items():
        note = "best stage" if stage == best else ""
        rows.append((f"  {stage}", value, floors.get(stage), note))
    for label, value, floor, note in rows:
        untrained = "" if floor is None else f"{floor:.4f}"
        line = f"{label:24}{value:>10.4f}{untrained:>11}  {note}"
        print(line.rstrip(), flush=True)
