"""`kerassl presets push` and `publish-zoo`: presets go to the Hub."""

import argparse
import contextlib
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from kerassl.cli.errors import UserError, print_note, user_errors
from kerassl.cli.loading import load_keras
from kerassl.cli.preset_table import (
    has_license,
    megabytes,
    plain,
    print_table,
    shown_license,
)
from kerassl.names import ENCODER
from kerassl.run_folder import RECIPE, best_note

if TYPE_CHECKING:
    from kerassl.presets import Publication

NO_LICENSE = ": others may look at it, but not use it (--license gives one)"


def push(options: argparse.Namespace) -> int:
    """Runs `kerassl presets push`."""
    _check_can_ask("push", options.yes)
    load_keras()
    from kerassl import presets

    with user_errors(), _preset_of(options) as folder:
        upload = presets.upload_preset(
            options.uri,
            folder,
            private=options.private,
            commit_message=options.message,
            overwrite_card=options.overwrite_card,
            confirm=lambda plan: _is_wanted(plan, options.yes),
        )
    if options.json:
        print(json.dumps(upload._asdict()))
    else:
        print(f"{upload.uri}\n{upload.url}")
        if upload.kept_card:
            print("README.md: kept the one that was edited on the Hub.")
    return 0


@contextlib.contextmanager
def _preset_of(options: argparse.Namespace) -> Iterator[Path]:
    """Yields a preset's folder: the given one, or a new one of a run."""
    from kerassl import presets, runs
    from kerassl.presets.hub_calls import parse_uri

    source, (repository, _) = Path(options.source), parse_uri(options.uri)
    is_run = any((source / name).exists() for name in (RECIPE, ENCODER))
    if (source / "kerassl.json").exists() or not is_run:
        if options.license or options.data_name:
            raise presets.PresetError(
                "--license and --data-name are for runs. A preset has them in "
                "its kerassl.json: give them to `kerassl.save_preset`."
            )
        yield source
        return
    if note := best_note(source):
        print_note(note)
    with tempfile.TemporaryDirectory() as parent:
        yield runs.save_preset(
            source,
            Path(parent, "preset"),
            name=repository.split("/")[1],
            license=options.license,
            datasets=[options.data_name] if options.data_name else (),
        )


def _is_wanted(plan: "Publication", is_sure: bool) -> bool:
    """Prints what will be published, and asks unless the user is sure."""
    info = plan.info
    seen = "only you" if plan.is_private else "everybody"
    state = "new" if plan.is_new else "there already"
    rows = [
        (name, f"{size:,} bytes")
        for name, size in plan.files.items()
        if not (plan.keeps_card and name == "README.md")
    ]
    rows += [
        (
            "license",
            shown_license(info) + ("" if has_license(info) else NO_LICENSE),
        ),
        ("trained on", ", ".join(info.datasets) or "not said"),
    ]
    if plan.keeps_card or plan.replaces_card:
        fate = (
            "the one that was edited on the Hub is kept (--overwrite-card "
            "replaces it)"
            if plan.keeps_card
            else "the one that was edited on the Hub is overwritten"
        )
        rows.append(("README.md", fate))
    print(
        f"To be published on hf://{plan.name}, branch {plan.revision} ({state};"
        f" {seen} can see it):",
        file=sys.stderr,
    )
    print_table([(plain(k), plain(v)) for k, v in rows], sys.stderr)
    return is_sure or _says_yes()


def _check_can_ask(action: str, is_sure: bool) -> None:
    if not is_sure and not sys.stdin.isatty():
        raise UserError(
            f"{action} asks before it publishes, and nobody can answer here. "
            "Give --yes to publish without asking."
        )


def _says_yes() -> bool:
    print("Publish? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def publish_zoo(options: argparse.Namespace) -> int:
    """Runs `kerassl presets publish-zoo`."""
    _check_can_ask("publish-zoo", options.yes)
    load_keras()
    from kerassl import presets

    owner = options.owner.removeprefix("hf://").rstrip("/")
    if not owner or "/" in owner:
        raise UserError(
            "publish-zoo takes an owner on the Hub, such as hf://ada. "
            f"Received: {options.owner}"
        )
    found = presets.list_presets()
    for info in found:
        if Path(info.name).exists():
            raise UserError(
                f"{info.name} in the working directory would be taken for the "
                "preset of this name. Publish from another directory."
            )
    print(
        f"To be published, each as hf://{owner}/NAME "
        f"({'only you' if options.private else 'everybody'} can see them):",
        file=sys.stderr,
    )
    rows = [(info.name, megabytes(info), shown_license(info)) for info in found]
    print_table(rows, sys.stderr)
    if not options.yes and not _says_yes():
        raise UserError("Nothing was sent: the upload wasn't confirmed.")
    for info in found:
        with user_errors(), tempfile.TemporaryDirectory() as parent:
            folder = Path(parent, info.name)
            # Of those that moved to the Hub, the cache holds links.
            shutil.copytree(presets.preset_path(info.name), folder)
            upload = presets.upload_preset(
                f"hf://{owner}/{info.name}", folder, private=options.private
            )
        # One line each, as they are sent: a second run finds them there.
        print(json.dumps({"name": info.name, **upload._asdict()}), flush=True)
    return 0
