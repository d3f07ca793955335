"""Trains on CIFAR-10 or ImageNet for the zoo and the pages of numbers.

    export KERAS_BACKEND=torch
    python scripts/train.py presets --only simclr
    python scripts/train.py methods
    python scripts/train.py tune simclr --change optimizer.learning_rate=0.8
    python scripts/train.py studies

`presets` trains, evaluates and packs the presets of the zoo; `methods` compares
all methods in short runs; `tune` tries changes of a recipe; `studies` repeats
studies of the papers. Finished work is skipped. `python scripts/train.py
presets --help` describes each.
"""

import argparse
import sys

# First, since it adds the repository's root to the path.
import results  # noqa: F401
from trainings import methods, presets, studies, tune


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Train for the docs.")
    kinds = parser.add_subparsers(required=True)
    for module in (presets, methods, tune, studies):
        name = module.__name__.rpartition(".")[-1]
        kind = kinds.add_parser(
            name,
            help=(module.__doc__ or "").splitlines()[0],
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(kind)
        kind.set_defaults(run=module.main, error=kind.error)
    options = parser.parse_args()
    try:
        status = options.run(options)
    except ValueError as error:
        options.error(str(error))
    return status


if __name__ == "__main__":
    sys.exit(main())
