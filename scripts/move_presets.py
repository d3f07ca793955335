"""Leaves presets of the zoo to the Hub, so that the wheel stays small.

    kerassl presets publish-zoo hf://OWNER --yes > published.jsonl
    python scripts/move_presets.py published.jsonl simclr_resnet_nano_cifar10

For each name: what was published is downloaded at its commit and verified;
presets/index.json then names that commit, and the folder in presets/ is
deleted. `load_encoder` takes the same name as before, fetches the preset once
and refuses it if it differs from the index. Nothing is changed if a name fails.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

from results import PRESETS, read_lines


def addresses(published: Path, names: list[str]) -> dict[str, str]:
    """Returns each preset's address, with its commit.

    Args:
        published: path of what `kerassl presets publish-zoo` printed.
        names: list of str.

    Raises:
        ValueError: if a preset wasn't published, or isn't what the zoo has.
    """
    from kerassl.presets.load import open_source

    sent = {line["name"]: line["uri"] for line in read_lines(published)}
    for name in names:
        if name not in sent:
            raise ValueError(f"{published} has no {name}.")
        ours, there = open_source(name), open_source(sent[name])
        if ours is None or there is None or ours.info != there.info:
            raise ValueError(f"{sent[name]} isn't the {name} of the zoo.")
    return {name: sent[name] for name in names}


def move(found: dict[str, str]) -> None:
    """Changes the index, and then deletes the folders."""
    from kerassl.files import replacing
    from kerassl.presets.load import INDEX

    index = json.loads((PRESETS / INDEX).read_text(encoding="utf-8"))
    for name, uri in found.items():
        source, _, revision = uri.partition("@")
        index["presets"][name] |= {"source": source, "revision": revision}
    with replacing(PRESETS / INDEX) as temporary:
        text = json.dumps(index, indent=2) + "\n"
        temporary.write_text(text, encoding="utf-8")
    for name in found:
        shutil.rmtree(PRESETS / name, ignore_errors=True)


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("published", type=Path)
    parser.add_argument("names", nargs="+", metavar="NAME")
    options = parser.parse_args()
    try:
        move(addresses(options.published, options.names))
    except (ValueError, OSError) as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
