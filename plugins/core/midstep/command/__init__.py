"""The command line: `midstep new`, `check`, `methods` and `doctor`; also `python -m midstep`."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from . import check, doctor, methods, new

COMMANDS = (new, check, methods, doctor)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit status: 0, 1 where something is broken, 2 for a wrong call."""
    parser = argparse.ArgumentParser(prog="midstep", description=__doc__.split(":")[0] + " of midstep.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        name = command.__name__.rpartition(".")[2]
        text = (command.__doc__ or "").splitlines()[0]
        subparser = commands.add_parser(name, help=text, description=text)
        command.declare(subparser)
        subparser.set_defaults(run=command.run)
    given = parser.parse_args(arguments)
    logging.getLogger("midstep").setLevel(logging.ERROR)  # what did not load is in what the commands print
    try:
        return int(given.run(given))
    except ValueError as error:
        print(f"midstep: {error}", file=sys.stderr)
        return 1
