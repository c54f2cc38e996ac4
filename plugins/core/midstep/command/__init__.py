"""The command line: `midstep new`, `check`, `methods`, `doctor`, `search`, `try`, `trace`; or `python -m midstep`."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from .. import tracing, trying
from . import check, doctor, methods, new, search

COMMANDS = (new, check, methods, doctor, search)


def main() -> int:
    """Run the subcommand that the process was started with, and return its exit status."""
    logging.getLogger("midstep").setLevel(logging.ERROR)  # what did not load is in what the commands print
    return run(sys.argv[1:])


def run(arguments: Sequence[str]) -> int:
    """Run one subcommand and return its exit status: 0, or 1 where something is broken or refused."""
    parser = argparse.ArgumentParser(prog="midstep", description="The command line of midstep.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        text = (command.__doc__ or "").splitlines()[0]
        subparser = commands.add_parser(command.__name__.rpartition(".")[2], help=text, description=text)
        command.declare(subparser)
        subparser.set_defaults(run=command.run)
    trying.add(commands)
    tracing.add(commands)
    given = parser.parse_args(arguments)
    try:
        return int(given.run(given))
    except ValueError as error:
        print(f"midstep: {error}", file=sys.stderr)
        return 1
