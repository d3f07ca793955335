"""Makes a preset of an official PyTorch checkpoint.

    python scripts/convert.py sources
    python scripts/convert.py convert moco_v2_resnet50 \
        moco_v2_800ep_pretrain.pth.tar presets/moco_v2

Any Keras backend will do, but PyTorch must be installed to read `.pth` files.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses the command line, and lists or converts."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("sources", help="list the known kinds of checkpoints")
    convert = commands.add_parser("convert", help="make a preset")
    convert.add_argument("source", help="one of those that `sources` lists")
    convert.add_argument("path", type=Path, help="the checkpoint's file")
    convert.add_argument("folder", type=Path, help="the preset to make")
    convert.add_argument("--name", help="by default the folder's")
    convert.add_argument(
        "--num-heads", type=int, help="of a ViT that isn't an official one"
    )
    convert.add_argument(
        "--overwrite", action="store_true", help="replace an older preset"
    )
    given = vars(parser.parse_args(arguments))

    from kerassl import presets
    from kerassl.reading import one_line

    if given.pop("command") == "sources":
        for name, source in presets.convert.SOURCES.items():
            print(f"{name:22} {source.license:13} {source.url}")
        return 0
    try:
        folder = presets.convert_checkpoint(**given)
    except (ImportError, OSError, ValueError) as error:
        # It may quote the file.
        print(f"convert.py: {one_line(str(error))}", file=sys.stderr)
        return 1
    print(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
