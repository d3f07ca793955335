"""Options that several commands share, and the types of their values."""

import argparse
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kerassl.cli.errors import UserError
from kerassl.names import MAX_UNREADABLE

#: What `kerassl.data.load` takes.
DATA = (
    "fashion_mnist_small, a TFDS name such as cifar10, folder:PATH, a list "
    "(.txt, .csv), a .tar, .parquet, .npz, .npy, .h5 or .zarr file, a URL of "
    "tar or Parquet files, or hf:OWNER/NAME"
)


def check_data(data: str) -> None:
    """Refuses the path of a folder or a file that doesn't exist."""
    path = Path(os.path.expanduser(data.removeprefix("folder:")))
    suffixes = (".npz", ".npy", ".h5", ".hdf5", ".txt", ".csv")
    if data.startswith("folder:"):
        if not path.is_dir():
            raise UserError(f"There is no folder {path}.")
    elif data.lower().endswith(suffixes) and not path.is_file():
        raise UserError(f"There is no file {path}.")


def add_source(parser: argparse.ArgumentParser) -> None:
    """Adds the argument SOURCE, an encoder."""
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a run's folder, a preset (its name, hf://owner/name or its "
        "folder), a .keras file of an encoder, or KerasHub's weights "
        "(hub:NAME, dinov2_small, dinov2_base or imagenet)",
    )


def add_data_dir(parser: argparse.ArgumentParser) -> None:
    """Adds the option --data-dir."""
    parser.add_argument("--data-dir", help="where TFDS keeps its data sets")


def add_max_unreadable(
    parser: argparse.ArgumentParser, otherwise: str | None = None
) -> None:
    """Adds the option --max-unreadable.

    Args:
        parser: of a command that reads images.
        otherwise: str, what the help says is taken without it, where that is
            decided later: the option is then `None`. By default it is
            `MAX_UNREADABLE`.
    """
    parser.add_argument(
        "--max-unreadable",
        type=share,
        default=None if otherwise else MAX_UNREADABLE,
        metavar="SHARE",
        help="the share of a folder's images that may be unreadable and are "
        f"left out ({otherwise or MAX_UNREADABLE})",
    )


def _within(
    kind: Callable[[str], Any], low: float, high: float, words: str
) -> Callable[[str], Any]:
    """Returns a parser of numbers from `low` to `high`."""

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not {words}")
        return value

    return parse


share = _within(float, 0, 1, "a number from 0 to 1")
positive = _within(int, 1, math.inf, "a positive integer")
seed = _within(int, 0, 2**32 - 1, "an integer in [0, 2**32)")


def value_range(text: str) -> str:
    """Checks a range, `LOW,HIGH` or in percent."""
    from kerassl.value_range import parse_range

    try:
        parse_range(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def add_range(parser: argparse.ArgumentParser, default: str = "") -> None:
    """Adds the option --range.

    Args:
        parser: of a command that reads images.
        default: str, what is taken without it.
    """
    parser.add_argument(
        "--range",
        dest="value_range",
        type=value_range,
        metavar="LOW,HIGH",
        help="the values that become black and white, such as 0,10000 or "
        "--range=-160,240; or percentiles of each channel, such as 1%%,99%% "
        + (default or "(default: what the files say)"),
    )


def channels(text: str) -> tuple[int, ...]:
    """Parses one or three numbers of channels, such as `3,2,1`."""
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        found = ()
    if len(found) not in (1, 3) or min(found) < 0:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not one channel or three, such as 3,2,1"
        )
    return found
