"""The command `kerassl`."""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from kerassl import __version__
from kerassl.cli import (
    data,
    embed,
    evaluate,
    export,
    nearest,
    presets,
    pretrain,
    report,
)
from kerassl.cli.errors import UserError, print_error, user_errors
from kerassl.cli.output import Lasting
from kerassl.reading import one_line


class Parser(argparse.ArgumentParser):
    """Reports errors in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Prints the message and exits with code 2."""
        self.exit(2, f"{self.prog}: error: {one_line(message)} (see --help)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: the words of the command line; by default the process's.

    Returns:
        The exit code: 0; 1 if training diverged or its guard stopped it, if a
        run or scores couldn't be stored, if one of several processes failed,
        if `data check` found an unreadable image, or if nobody reads the
        output;
        2 for an invalid argument; 130 or 143 after an interruption.
    """
    try:
        code = _run(arguments)
        with user_errors():  # The disk may be full.
            print(end="", flush=True)
        return code
    except UserError as error:
        print_error(error)
        return 2
    except BrokenPipeError:
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        # Python flushes them again at exit, and would complain.
        for stream in (sys.stdout, sys.stderr):
            Lasting(stream).flush()


def _run(arguments: Sequence[str] | None) -> int:
    parser = Parser(
        prog="kerassl",
        description="Self-supervised learning for Keras 3. The environment "
        "variable KERAS_BACKEND selects tensorflow, jax or torch.",
    )
    parser.add_argument(
        "--version", action="version", version=f"kerassl {__version__}"
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for module in (
        pretrain,
        evaluate,
        embed,
        nearest,
        export,
        report,
        presets,
        data,
    ):
        module.add_parser(commands)
    options = parser.parse_args(arguments)
    options.arguments = sys.argv[1:] if arguments is None else arguments
    options.parse = parser.parse_args
    command: Callable[[argparse.Namespace], int] = options.command
    return command(options)
