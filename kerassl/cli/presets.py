"""`kerassl presets`: publishes, finds, downloads, checks and converts."""

import argparse
import json
from typing import TYPE_CHECKING, Any

from kerassl.cli.errors import print_note, user_errors
from kerassl.cli.loading import load_keras
from kerassl.cli.preset_table import (
    accuracy,
    megabytes,
    plain,
    print_table,
    shown_license,
    summary,
)
from kerassl.cli.publishing import publish_zoo, push
from kerassl.reading import one_line
from kerassl.run_folder import best_note, read_settings

if TYPE_CHECKING:
    from kerassl.presets import PresetInfo

SOURCE = "a name of `kerassl presets list`, hf://owner/name, or a folder"
URI = "hf://owner/name, or hf://owner/name@revision"
DATA_NAME = (
    "public name of a run's images (default: the name of a TFDS data set, or "
    "'own images')"
)


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

    argument = add("save", save, "save the encoder of a run as a preset")
    argument("run", metavar="RUN", help="a run's folder")
    argument("folder", metavar="FOLDER", help="of the preset to create")
    argument("--name", help="of the preset (default: the folder's)")
    argument(
        "--license",
        help="of the encoder, as the Hub spells it, such as mit (default: "
        "none, so that others get no right to use it)",
    )
    argument("--data-name", help=DATA_NAME)
    argument(
        "--overwrite", action="store_true", help="replace an existing preset"
    )

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
    argument("--data-name", help=DATA_NAME)
    argument(
        "--overwrite-card",
        action="store_true",
        help="overwrite a README.md that was edited on the Hub",
    )
    argument("--yes", action="store_true", help="publish without asking")
    argument("--json", **json_option)

    argument = add(
        "publish-zoo",
        publish_zoo,
        "publish all presets of `kerassl presets list` on the Hub, each in a "
        "repository of its name; run it again after an interruption",
    )
    argument("owner", metavar="OWNER", help="hf://NAME of a user or a group")
    argument(
        "--private", action="store_true", help="make new repositories private"
    )
    argument("--yes", action="store_true", help="publish without asking")

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
    layouts = "needed for sources that are layouts, such as timm_vit"
    argument(
        "--mean",
        **channels,
        help=f"mean of each channel, of pixels in [0, 1]; {layouts}",
    )
    argument(
        "--std",
        **channels,
        help=f"standard deviation of each channel; {layouts}",
    )
    argument("--license", help=f"license of the weights; {layouts}")
    argument(
        "--dataset",
        dest="datasets",
        action="append",
        default=[],
        help=f"data set that the weights were trained on; {layouts}",
    )


def list_presets(options: argparse.Namespace) -> int:
    """Runs `kerassl presets list`."""
    load_keras(saves=False)
    from kerassl import presets

    found = presets.list_presets()
    if options.json:
        print(json.dumps([info.to_dict() for info in found]))
        return 0
    if not found:
        print("No preset comes with kerassl. Others are on the Hub: hf://...")
        return 0
    protocols = ("knn", "linear", "linear_1%")
    rows = [
        (
            info.name,
            *(accuracy(info.scores.get(key, {})) for key in protocols),
            ", ".join(info.datasets),
            shown_license(info),
            megabytes(info),
            summary(info),
        )
        for info in found
    ]
    header = ("trained on", "license", "size", "encoder")
    print_table([("name", *protocols, *header), *rows])
    return 0


def show(options: argparse.Namespace) -> int:
    """Runs `kerassl presets show`."""
    info = _open(options.source)
    if options.json:
        print(json.dumps(info.to_dict()))
        return 0
    lines = {
        "name": info.name,
        "encoder": summary(info),
        "method": info.method,
        "description": info.description,
        "trained on": ", ".join(info.datasets),
        **{
            f"{protocol} accuracy": accuracy(scores)
            for protocol, scores in info.scores.items()
        },
        "license": shown_license(info),
        "parameters": f"{info.parameters:,}",
        # Their names are free; the prefix keeps them from posing as others.
        **{f"training: {key}": value for key, value in info.training.items()},
        "recipe": info.recipe_hash,
        "versions": ", ".join(f"{k} {v}" for k, v in info.versions.items()),
    }
    rows = [
        (plain(key), plain(value))
        for key, value in lines.items()
        if value not in (None, "")
    ]
    print_table(rows)
    return 0


def save(options: argparse.Namespace) -> int:
    """Runs `kerassl presets save`."""
    with user_errors():
        read_settings(options.run)  # Fails before Keras is loaded.
    load_keras()
    from kerassl import runs

    with user_errors():
        folder = runs.save_preset(
            options.run,
            options.folder,
            name=options.name,
            license=options.license,
            datasets=[options.data_name] if options.data_name else (),
            overwrite=options.overwrite,
        )
    if note := best_note(options.run):
        print_note(note)
    print(f"{one_line(str(folder))}: saved and verified")
    return 0


def pull(options: argparse.Namespace) -> int:
    """Runs `kerassl presets pull`."""
    load_keras(saves=False)
    from kerassl import presets

    with user_errors():
        folder = presets.download_preset(options.uri, options.folder)
    print(f"{one_line(str(folder))}: verified")
    return 0


def path(options: argparse.Namespace) -> int:
    """Runs `kerassl presets path`."""
    load_keras(saves=False)
    from kerassl import presets

    with user_errors():
        print(presets.preset_path(options.source))
    return 0


def verify(options: argparse.Namespace) -> int:
    """Runs `kerassl presets verify`."""
    info = _open(options.source)
    print(f"{one_line(options.source)}: verified; {summary(info)}")
    return 0


def sources(options: argparse.Namespace) -> int:
    """Runs `kerassl presets sources`."""
    load_keras(saves=False)
    from kerassl.presets.checkpoints import SOURCES

    fields = ("title", "license", "url")
    rows = {
        name: [str(getattr(source, field)) or "given" for field in fields]
        for name, source in SOURCES.items()
    }
    if options.json:
        print(json.dumps({k: dict(zip(fields, v)) for k, v in rows.items()}))
    else:
        print_table([("source", *fields), *((k, *v) for k, v in rows.items())])
    return 0


def convert(options: argparse.Namespace) -> int:
    """Runs `kerassl presets convert`."""
    load_keras()
    from kerassl import presets

    with user_errors(ImportError):  # PyTorch or safetensors
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
    print(folder)
    return 0


def _open(source: str) -> "PresetInfo":
    """Returns the fields of a preset after verifying all of it."""
    load_keras(saves=False)
    from kerassl.presets import PresetError
    from kerassl.presets.format.build import check_build
    from kerassl.presets.load import open_source

    with user_errors():
        preset = open_source(source)
        if preset is None:
            raise PresetError(
                f"{source} has no kerassl.json, so it is not a preset. "
                "`kerassl presets save` makes one from a run's folder."
            )
        check_build(preset)
        return preset.info
