"""`kerassl presets`: publishes, finds, downloads, checks and converts."""

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from kerassl.cli.errors import UserError, user_errors
from kerassl.cli.loading import load_keras
from kerassl.names import ENCODER
from kerassl.reading import one_line

if TYPE_CHECKING:
    from kerassl.presets import PresetInfo, Publication

SOURCE = "a name of `kerassl presets list`, hf://owner/name, or a folder"
NO_LICENSE = ": others may look at it, but not use it (--license gives one)"
URI = "hf://owner/name, or hf://owner/name@revision"


def add_parser(commands: Any) -> None:
    """Adds the command to the parser's."""
    parser = commands.add_parser(
        "presets",
        help="publish, find, download, check and convert presets",
        description="Publishes, finds, downloads and checks presets: trained "
        "encoders, in a folder or on the Hugging Face Hub. Converts official "
        "PyTorch checkpoints. No code from a preset or checkpoint runs.",
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)

    def add(name: str, run: Any, help: str) -> Any:
        action = actions.add_parser(name, help=help, description=help)
        action.set_defaults(command=run)
        return action.add_argument

    json_option = {
        "action": "store_true",
        "help": "print JSON instead",
    }
    argument = add("list", list_presets, "list the presets of kerassl")
    argument("--json", **json_option)

    argument = add("show", show, "verify a preset and show its fields")
    argument("source", metavar="SOURCE", help=SOURCE)
    argument("--json", **json_option)

    argument = add("pull", pull, "download and verify a preset from the Hub")
    argument("uri", metavar="URI", help=URI)
    argument("folder", metavar="FOLDER", help="a new folder")

    argument = add("push", push, "publish a preset on the Hub, in one commit")
    argument("source", metavar="FOLDER", help="of a run or a preset")
    argument("uri", metavar="URI", help=URI)
    argument(
        "--private",
        action="store_true",
        help="make a new repository private",
    )
    argument("--message", help="message of the commit")
    argument(
        "--license",
        help="license of a run's encoder, as the Hub spells it, such as mit "
        "(default: none, so that others get no right to use it)",
    )
    argument(
        "--data-name",
        help="public name of a run's images (default: the name of a TFDS data "
        "set, or 'own images')",
    )
    argument(
        "--overwrite-card",
        action="store_true",
        help="overwrite a README.md that was edited on the Hub",
    )
    argument("--yes", action="store_true", help="publish without asking")
    argument("--json", **json_option)

    argument = add("path", path, "print the folder of a preset, verified")
    argument("source", metavar="SOURCE", help=SOURCE)

    argument = add("verify", verify, "verify a preset")
    argument("source", metavar="SOURCE", help=SOURCE)

    argument = add("sources", sources, "list the checkpoints `convert` takes")
    argument("--json", **json_option)

    argument = add(
        "convert", convert, "convert a PyTorch checkpoint to a preset"
    )
    argument(
        "source",
        metavar="SOURCE",
        help="a name of `kerassl presets sources`, such as dino_vit",
    )
    argument("file", metavar="FILE", help="a .pth, .bin or .safetensors file")
    argument("folder", metavar="FOLDER", help="of the preset to create")
    argument("--name", help="of the preset (default: the folder's)")
    argument(
        "--num-heads",
        type=int,
        help="number of heads of a ViT (default: that of the official one)",
    )
    argument(
        "--overwrite", action="store_true", help="replace an existing preset"
    )
    channels = dict(nargs=3, type=float, metavar=("R", "G", "B"))
    argument("--mean", **channels, help="of pixels in [0, 1], for a layout")
    argument("--std", **channels, help="likewise, the standard deviation")
    argument("--license", help="of the weights, for a layout")
    argument(
        "--dataset",
        dest="datasets",
        action="append",
        default=[],
        help="that the weights were trained on, for a layout",
    )


def list_presets(options: argparse.Namespace) -> int:
    """Runs `kerassl presets list`."""
    from kerassl import presets

    found = presets.list_presets()
    if options.json:
        print(json.dumps([info.to_dict() for info in found]))
        return 0
    if not found:
        print("No preset comes with kerassl. Others are on the Hub: hf://...")
        return 0
    rows = [
        (
            info.name,
            _accuracy(info.scores.get("knn", {})),
            _accuracy(info.scores.get("linear", {})),
            _summary(info),
        )
        for info in found
    ]
    _print_table([("name", "knn", "linear", "encoder"), *rows])
    return 0


def show(options: argparse.Namespace) -> int:
    """Runs `kerassl presets show`."""
    info = _open(options.source)
    if options.json:
        print(json.dumps(info.to_dict()))
        return 0
    lines = {
        "name": info.name,
        "encoder": _summary(info),
        "method": info.method,
        "description": info.description,
        "trained on": ", ".join(info.datasets),
        **{
            f"{protocol} accuracy": _accuracy(scores)
            for protocol, scores in info.scores.items()
        },
        "license": _license(info),
        "parameters": f"{info.parameters:,}",
        # Their names are free; the prefix keeps them from posing as others.
        **{f"training: {key}": value for key, value in info.training.items()},
        "recipe": info.recipe_hash,
        "versions": ", ".join(f"{k} {v}" for k, v in info.versions.items()),
    }
    rows = [
        (_plain(key), _plain(value))
        for key, value in lines.items()
        if value not in (None, "")
    ]
    _print_table(rows)
    return 0


def pull(options: argparse.Namespace) -> int:
    """Runs `kerassl presets pull`."""
    from kerassl import presets

    with user_errors():
        folder = presets.download_preset(options.uri, options.folder)
    print(f"{folder}: verified")
    return 0


def push(options: argparse.Namespace) -> int:
    """Runs `kerassl presets push`."""
    if not options.yes and not sys.stdin.isatty():
        raise UserError(
            "push asks before it publishes, and nobody can answer here. Give "
            "--yes to publish without asking."
        )
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
    if (source / "kerassl.json").exists() or not (source / ENCODER).exists():
        if options.license or options.data_name:
            raise presets.PresetError(
                "--license and --data-name are for runs. A preset has them in "
                "its kerassl.json: give them to `kerassl.save_preset`."
            )
        yield source
        return
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
            _license(info) + ("" if _has_license(info) else NO_LICENSE),
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
    _print_table([(_plain(k), _plain(v)) for k, v in rows], sys.stderr)
    if is_sure:
        return True
    print("Publish? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def path(options: argparse.Namespace) -> int:
    """Runs `kerassl presets path`."""
    from kerassl import presets

    with user_errors():
        print(presets.preset_path(options.source))
    return 0


def verify(options: argparse.Namespace) -> int:
    """Runs `kerassl presets verify`."""
    info = _open(options.source)
    print(f"{options.source}: verified; {_summary(info)}")
    return 0


def sources(options: argparse.Namespace) -> int:
    """Runs `kerassl presets sources`."""
    from kerassl.presets.checkpoints import SOURCES

    fields = ("title", "license", "url")
    rows = {
        name: [str(getattr(source, field)) or "given" for field in fields]
        for name, source in SOURCES.items()
    }
    if options.json:
        print(json.dumps({k: dict(zip(fields, v)) for k, v in rows.items()}))
    else:
        _print_table([("source", *fields), *((k, *v) for k, v in rows.items())])
    return 0


def convert(options: argparse.Namespace) -> int:
    """Runs `kerassl presets convert`."""
    load_keras()
    from kerassl import presets

    try:
        with user_errors():
            folder = presets.convert_checkpoint(
                options.file,
                options.source,
                options.folder,
                name=options.name,
                num_heads=options.num_heads,
                mean=options.mean,
                std=options.std,
                license=options.license,
                datasets=options.datasets,
                overwrite=options.overwrite,
            )
    except ImportError as error:  # PyTorch or safetensors
        raise UserError(str(error)) from error
    print(folder)
    return 0


def _open(source: str) -> "PresetInfo":
    """Returns the fields of a preset after verifying all of it."""
    from kerassl.presets import PresetError
    from kerassl.presets.format.build import check_build
    from kerassl.presets.load import open_source

    with user_errors():
        preset = open_source(source)
        if preset is None:
            raise PresetError(
                f"{source} has no kerassl.json, so it is not a preset. "
                "`kerassl presets push` makes one from a run's folder."
            )
        check_build(preset)
        return preset.info


def _summary(info: "PresetInfo") -> str:
    height, width, channels = (size or "any" for size in info.image_shape)
    return (
        f"{info.architecture}, images {height} x {width} x {channels}, "
        f"{info.features} features"
    )


def _has_license(info: "PresetInfo") -> bool:
    return info.license != "unknown"


def _license(info: "PresetInfo") -> str:
    return info.license if _has_license(info) else "none"


def _accuracy(scores: dict[str, Any]) -> str:
    return f"{scores['accuracy']:.4f}" if "accuracy" in scores else ""


def _print_table(
    rows: Sequence[Sequence[str]], file: TextIO | None = None
) -> None:
    """Prints aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths))
        print("  ".join(cells).rstrip(), file=file)


def _plain(value: Any) -> str:
    """Returns untrusted text without control characters."""
    return one_line(str(value))
