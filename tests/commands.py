"""`python -m commands try …`: the commands of midstep.trying and midstep.tracing, dispatched as `midstep` does."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from midstep import tracing, trying


def midstep(*words: str, variables: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, and return what it said."""
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-m", "commands", *words],
        env={**os.environ, "PYTHONPATH": path, **(variables or {})},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def main(words: list[str] | None = None) -> int:
    """Dispatch; in this process, where a test gives the words."""
    parser = argparse.ArgumentParser(prog="midstep")
    subparsers = parser.add_subparsers(required=True)
    for module in (trying, tracing):
        module.add(subparsers)
    options = parser.parse_args(words)
    status: int = options.run(options)
    return status


if __name__ == "__main__":
    sys.exit(main())
