"""`kerassl evaluate`: measures what an encoder has learned."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from kerassl.cli.time_left import Show
    from kerassl.runs import Evaluation
    from kerassl.runs.journal import Journal

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
# Entries of scores by which a score differs from another one of its name.
ASKED = (
    *("train_size", "test_size", "seeds", "epochs"),
    *("k", "temperature", "severity", "range"),
)


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
        "linear_sgd and finetune may use (default: 1)",
    )
    labels.add_argument(
        "--per-class",
        type=positive,
        help="the number of training images of each class that they may use",
    )
    add(
        "--seeds",
        type=positive,
        help="number of random draws of the labels (default: 1)",
    )
    add(
        "--layer",
        help="the stage whose features linear uses, or `stages` to "
        "concatenate all (default: the encoder's output)",
    )
    add(
        "--epochs",
        type=positive,
        help="epochs of finetune and linear_sgd (default: 20, or as many as "
        "make 500 steps if that is more)",
    )
    add("--k", type=positive, help="number of neighbors in kNN (default: 20)")
    add(
        "--temperature",
        type=float,
        help="temperature of the neighbors' votes in kNN (default: 0.07)",
    )
    add(
        "--severity",
        type=positive,
        help="strength of knn_corrupted, from 1 to 5 (default: 3)",
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
        help="other encoders to measure under the same protocols, separated by "
        "commas: runs, presets, hub:NAME for a preset of KerasHub, "
        "dinov2_small, dinov2_base or imagenet (a ResNet-50) for released "
        "weights. They stay frozen, but for finetune. Random weights are "
        "always measured",
    )
    add_data_dir(parser)
    add(
        "--json",
        action="store_true",
        help="print one JSON object as the last line",
    )


def run(options: argparse.Namespace) -> int:
    """Runs the command; returns the exit code."""
    with user_errors():
        asked = _asked(options)
        if options.data is None and None in (options.train, options.test):
            raise ValueError("Give --data, or both --train and --test.")
    load_keras()
    from kerassl.cli.time_left import time_left
    from kerassl.runs.comparison import statements
    from kerassl.runs.files import encoder_mark

    with user_errors():
        protocols = _protocols(asked)
        mark = encoder_mark(options.source)
        subject = _subject(options)
        beside = _beside(options.beside, subject)
        floors = _floors(options.untrained_from, subject, protocols)
        for title, protocol in protocols.items():
            protocol.check(subject, floors.get(title))
            for other in beside.values():
                protocol.check(other)
        trained_on = _trained_on(options.source)
    _print_notes(protocols, subject)
    scores, stored = {}, True
    with time_left() as show:
        todo = protocols, subject, floors, beside
        journal = _journal(options.source, *todo, show)
        width = _print_header(protocols, beside)
        for title, score in _measure(*todo, journal):
            scores[title] = score
            _print({title: score}, width)
            if trained_on is not None:
                # Immediately, since the next protocol may take an hour.
                is_own = subject.data == trained_on
                key = title if is_own else f"{title}, {subject.data}"
                kept = {"data": subject.data, **score}
                stored &= _store(options.source, key, kept, mark)
    for statement in statements(scores):
        print(statement)
    if stored:
        journal.remove()
    if options.json:
        found = {"run": options.source, "data": subject.data, **scores}
        print(json.dumps(found))
    return 0 if stored else 1


def _asked(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Returns the names of the protocols, and what is given of their options.

    Raises:
        ValueError: if there is no such protocol, or none of them takes one of
            the options.
    """
    names = [name.strip() for name in options.protocol.split(",")]
    for name in names:
        check_choice("protocol", name, SETTINGS)
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
    return {
        name: {key: given[key] for key in SETTINGS[name] if key in given}
        for name in names
    }


def _protocols(asked: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Returns the protocols, by the names of their scores."""
    from kerassl import runs

    found = {name: runs.protocol(name, **s) for name, s in asked.items()}
    return {name + one.suffix: one for name, one in found.items()}


def _subject(options: argparse.Namespace) -> "Evaluation":
    from kerassl import runs

    return runs.Evaluation(
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


def _beside(sources: str, subject: "Evaluation") -> dict[str, "Evaluation"]:
    """Returns the encoders of --beside, by short names."""
    from kerassl.runs import rivals

    names = rivals.rival_names(
        [s.strip() for s in sources.split(",") if s.strip()]
    )
    return {
        name: subject.beside(rivals.open_rival(source))
        for name, source in names.items()
    }


def _floors(
    source: str | None, subject: "Evaluation", protocols: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """Returns the scores of random weights from --untrained-from."""
    from kerassl import runs

    if source is None:
        return {}
    found = runs.earlier_scores(source, subject.data, subject.encoder)
    if missing := [title for title in protocols if title not in found]:
        raise ValueError(
            f"{source} has no score {', '.join(missing)} of {subject.data}. "
            f"It has: {', '.join(found) or 'none'}"
        )
    return found


def _trained_on(source: str) -> str | None:
    """Returns the data of a run, `None` if the source is something else.

    Its files are read, so that broken ones fail now instead of after the
    measurement.
    """
    from kerassl import runs

    if not (Path(source) / RECIPE).is_file():
        return None
    read_scores(source)
    data: str = read_settings(source)["data"]
    try:
        check_free(source)
    except runs.InUseError as error:
        print_note(f"scores may not be stored: {error}")
    return data


def _journal(
    source: str,
    protocols: dict[str, Any],
    subject: "Evaluation",
    floors: dict[str, dict[str, Any]],
    beside: dict[str, "Evaluation"],
    show: "Show",
) -> "Journal":
    """Opens the journal, which knows what an interrupted command has done."""
    from kerassl.runs.journal import Journal, journal_path

    digests = [one.digest() for one in (subject, *beside.values())]
    path = journal_path(source, *digests, subject.data, protocols)
    plan = {
        f"{title}, {what}": cost
        for title, protocol in protocols.items()
        for what, cost in protocol.plan(
            subject, floors.get(title), beside
        ).items()
    }
    journal = Journal(path, plan, show)
    if journal.known:
        print_note(
            f"continuing an interrupted evaluation: {journal.known} of "
            f"{len(plan)} measurements are done."
        )
    return journal


def _measure(
    protocols: dict[str, Any],
    subject: "Evaluation",
    floors: dict[str, dict[str, Any]],
    beside: dict[str, "Evaluation"],
    journal: "Journal",
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the name and the scores of each protocol."""
    for title, protocol in protocols.items():
        try:
            score = protocol.measure(
                subject,
                floors.get(title),
                lambda what, one: journal.measure(f"{title}, {what}", one),
                beside,
            )
        except KeyboardInterrupt:
            print_note(
                "interrupted. The same command continues after "
                f"{len(journal.scores)} of {len(journal.plan)} measurements."
            )
            raise
        yield title, score


def _store(
    source: str, key: str, score: dict[str, Any], mark: tuple[int, ...] | None
) -> bool:
    """Stores scores in a run; returns whether that was possible."""
    from kerassl.runs.files import write_scores

    try:
        former = read_scores(source).get(key, {})
        write_scores(source, {key: score}, mark)
    except (OSError, ValueError) as error:
        print_error(f"{key} isn't stored: {error}")
        return False
    changed = [
        f"{name} {former[name]}"
        for name in ASKED
        if former.get(name, score.get(name)) != score.get(name)
    ]
    if changed:
        print_note(
            f"this replaces the run's {key} of {former.get('accuracy')} with "
            f"{', '.join(changed)}"
        )
    return True


def _print_notes(protocols: dict[str, Any], subject: "Evaluation") -> None:
    found = (note for p in protocols.values() for note in p.notes(subject))
    for note in dict.fromkeys([*subject.notes, *found]):
        print_note(note)


def _print_header(
    protocols: dict[str, Any], beside: dict[str, "Evaluation"]
) -> int:
    """Prints the head of the table; returns the width of its first column."""
    rows = [f"{title} of {rival}" for title in protocols for rival in beside]
    width = max([24, *(len(row) + 1 for row in rows)])
    print(
        f"{'protocol':{width}}{'accuracy':>10}{'untrained':>11}  settings",
        flush=True,
    )
    return width


def _print(scores: dict[str, dict[str, Any]], width: int) -> None:
    from kerassl.runs.protocols import score_rows

    for name, accuracy, floor, words in score_rows(scores):
        untrained = "" if floor is None else f"{floor:.4f}"
        line = f"{name:{width}}{accuracy:>10.4f}{untrained:>11}  {words}"
        print(line.rstrip(), flush=True)
