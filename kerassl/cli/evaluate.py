"""`kerassl evaluate`: measures what an encoder has learned."""

import argparse
import json
from pathlib import Path
from typing import Any

from kerassl.choices import check_choice
from kerassl.cli.errors import print_error, print_note, user_errors
from kerassl.cli.loading import load_keras
from kerassl.cli.options import (
    add_data_dir,
    add_max_unreadable,
    add_range,
    add_source,
    positive,
)
from kerassl.run_folder import RECIPE, read_scores, read_settings
from kerassl.run_lock import check_free

# The options of each protocol. Their defaults are in the protocols.
FEW_LABELS = ("labels", "per_class", "seeds")
SETTINGS = {
    "knn": ("k", "temperature"),
    "linear": (*FEW_LABELS, "layer"),
    "linear_sgd": (*FEW_LABELS, "epochs"),
    "finetune": (*FEW_LABELS, "epochs"),
    "retrieval": (),
    "knn_corrupted": ("k", "temperature", "severity"),
}


def add_parser(commands: Any) -> None:
    """Adds the command to the parser's."""
    parser = commands.add_parser(
        "evaluate",
        help="measure an encoder on labeled images",
        description="Measures an encoder on labeled images, beside the same "
        "encoder with random weights: protocols learn from the training split "
        "and score the test split. The scores of a run are stored in its "
        "scores.json. After an interruption the same command continues with "
        "what isn't measured yet.",
    )
    parser.set_defaults(command=run)
    add = parser.add_argument
    add_source(parser)
    add(
        "--data",
        help="a labeled data set, as in `kerassl pretrain`. Without a test "
        "split the validation split is scored; without either, a fifth of each "
        "class is held out, the same images each time",
    )
    add("--train", metavar="DATA", help="learn from these images instead")
    add("--test", metavar="DATA", help="score these images instead")
    add(
        "--protocol",
        default="knn",
        help="one or more of knn (the default), linear, linear_sgd (on random "
        "crops, as in papers), finetune, retrieval and knn_corrupted, "
        "separated by commas",
    )
    add(
        "--train-limit",
        type=positive,
        help="limit the number of training images",
    )
    add("--test-limit", type=positive, help="limit the number of test images")
    add_max_unreadable(parser)
    add_range(parser, "(default: that of the training)")
    labels = parser.add_mutually_exclusive_group()
    labels.add_argument(
        "--labels",
        type=float,
        metavar="SHARE",
        help="the share of each class's training images that linear, "
        "linear_sgd and finetune may use (1)",
    )
    labels.add_argument(
        "--per-class",
        type=positive,
        help="the number of training images of each class, instead",
    )
    add("--seeds", type=positive, help="draws of the labels (1)")
    add(
        "--layer",
        help="the stage whose features linear uses, or `stages` to "
        "concatenate all (the encoder's output)",
    )
    add("--epochs", type=positive, help="of finetune and linear_sgd")
    add("--k", type=positive, help="kNN's neighbors (20)")
    add("--temperature", type=float, help="of kNN's weights (0.07)")
    add(
        "--severity",
        type=positive,
        help="of knn_corrupted, from 1 to 5 (3)",
    )
    add(
        "--untrained-from",
        metavar="SOURCE",
        help="another run or preset of this architecture, whose scores of "
        "random weights are reused instead of measured again",
    )
    add(
        "--beside",
        default="",
        metavar="SOURCES",
        help="frozen encoders to measure under the same protocols, separated "
        "by commas: runs, presets, hub:NAME for a preset of KerasHub, "
        "dinov2_small, dinov2_base or imagenet (a ResNet-50) for released "
        "weights. Random weights are always measured",
    )
    add_data_dir(parser)
    add(
        "--json",
        action="store_true",
        help="print one JSON object as the last line",
    )


def run(options: argparse.Namespace) -> int:
    """Runs the command; returns the exit code."""
    names = [name.strip() for name in options.protocol.split(",")]
    with user_errors():
        for name in names:
            check_choice("protocol", name, SETTINGS)
        given = _given(options, names)
        if options.data is None and None in (options.train, options.test):
            raise ValueError("Give --data, or both --train and --test.")
    load_keras()
    from kerassl import runs
    from kerassl.cli.time_left import time_left
    from kerassl.runs import rivals
    from kerassl.runs.comparison import statements
    from kerassl.runs.files import encoder_mark, write_scores
    from kerassl.runs.journal import Journal, journal_path

    with user_errors():
        protocols = {
            name: runs.protocol(
                name,
                **{k: given[k] for k in SETTINGS.get(name, ()) if k in given},
            )
            for name in names
        }
        mark = encoder_mark(options.source)
        subject = runs.Evaluation(
            options.source,
            options.data,
            train=options.train,
            test=options.test,
            train_limit=options.train_limit,
            test_limit=options.test_limit,
            data_dir=options.data_dir,
            max_unreadable=options.max_unreadable,
            value_range=options.value_range,
        )
        names_beside = rivals.rival_names(
            [s.strip() for s in options.beside.split(",") if s.strip()]
        )
        beside = {
            name: subject.beside(rivals.open_rival(source))
            for name, source in names_beside.items()
        }
        floors = {}
        if options.untrained_from is not None:
            floors = runs.earlier_scores(
                options.untrained_from, subject.data, subject.encoder
            )
            known = {n: n + p.suffix for n, p in protocols.items()}
            if missing := [s for s in known.values() if s not in floors]:
                raise ValueError(
                    f"{options.untrained_from} has no score "
                    f"{', '.join(missing)} of {subject.data}. It has: "
                    f"{', '.join(floors) or 'none'}"
                )
            floors = {name: floors[score] for name, score in known.items()}
        for name, protocol in protocols.items():
            protocol.check(subject, floors.get(name))
            for other in beside.values():
                protocol.check(other)
        settings = None
        if (Path(options.source) / RECIPE).is_file():
            # Broken files fail now instead of after the measurement.
            read_scores(options.source)
            settings = read_settings(options.source)
            try:
                check_free(options.source)
            except runs.InUseError as error:
                print_note(f"scores may not be stored: {error}")
    for note in dict.fromkeys(
        [
            *subject.notes,
            *(note for p in protocols.values() for note in p.notes(subject)),
        ]
    ):
        print_note(note)
    plan = {
        f"{name}{protocol.suffix}, {what}": cost
        for name, protocol in protocols.items()
        for what, cost in protocol.plan(
            subject, floors.get(name), beside
        ).items()
    }
    digests = [one.digest() for one in (subject, *beside.values())]
    path = journal_path(options.source, *digests, subject.data, protocols)
    scores, code = {}, 0
    with time_left() as show:
        journal = Journal(path, plan, show)
        if journal.known:
            print_note(
                f"continuing an interrupted evaluation: {journal.known} of "
                f"{len(plan)} measurements are done."
            )
        titles = [name + p.suffix for name, p in protocols.items()]
        rows = [f"{title} of {rival}" for title in titles for rival in beside]
        width = max([24, *(len(row) + 1 for row in rows)])
        print(
            f"{'protocol':{width}}{'accuracy':>10}{'untrained':>11}  settings",
            flush=True,
        )
        for name, protocol in protocols.items():
            title = name + protocol.suffix
            try:
                found = protocol.measure(
                    subject,
                    floors.get(name),
                    lambda what, one: journal.measure(f"{title}, {what}", one),
                    beside,
                )
            except KeyboardInterrupt:
                print_note(
                    "interrupted. The same command continues after "
                    f"{len(journal.scores)} of {len(plan)} measurements."
                )
                raise
            scores[title] = found
            _print({title: found}, width)
            # Stored immediately, since the next protocol may take an hour.
            if settings is not None:
                is_own = subject.data == settings["data"]
                key = title if is_own else f"{title}, {subject.data}"
                kept = {"data": subject.data, **found}
                try:
                    write_scores(options.source, {key: kept}, mark)
                except (OSError, ValueError) as error:
                    code = 1
                    print_error(f"{title} isn't stored: {error}")
    for statement in statements(scores):
        print(statement)
    if not code:
        journal.remove()
    if options.json:
        print(
            json.dumps({"run": options.source, "data": subject.data, **scores})
        )
    return code


def _given(options: argparse.Namespace, names: list[str]) -> dict[str, Any]:
    """Returns the options for protocols on the command line.

    Raises:
        ValueError: if none of the chosen protocols takes one of them.
    """
    given = {}
    for key in {key: None for keys in SETTINGS.values() for key in keys}:
        if getattr(options, key) is None:
            continue
        takers = [name for name, keys in SETTINGS.items() if key in keys]
        if not set(names) & set(takers):
            raise ValueError(
                f"--{key.replace('_', '-')} is an option of "
                f"{' and '.join(takers)}. Received: --protocol "
                f"{','.join(names)}"
            )
        given[key] = getattr(options, key)
    return given


def _print(scores: dict[str, dict[str, Any]], width: int) -> None:
    from kerassl.runs.protocols import score_rows

    for name, accuracy, floor, words in score_rows(scores):
        untrained = "" if floor is None else f"{floor:.4f}"
        line = f"{name:{width}}{accuracy:>10.4f}{untrained:>11}  {words}"
        print(line.rstrip(), flush=True)
